// Boots: records what the first instance of a disk reads while it boots, as a boot profile, and prefetches these blocks
// for later instances.
//
// An image made by fast create, or a clone of one, counts as booted by a virtual machine while it is open read-write;
// copiers and checksum tools open it read-only. An error here never fails an open, a read or a close. Thread-safe.
#pragma once

#include <memory>
#include <unordered_map>

#include "engine/boot/boot_profiles.h"
#include "engine/boot/recording.h"
#include "engine/images/image.h"
#include "engine/images/prefetcher.h"
#include "engine/namespace/inode_record.h"

namespace rekeyfs::images {

class Boots {
 public:
  Boots(store::Store& store, const boot::BootProfiles& profiles, Prefetcher& prefetcher)  // all must outlive it
      : store_(store), profiles_(profiles), prefetcher_(prefetcher) {}

  // The share of one open handle in a boot. The boot ends when its last Part is destroyed.
  class Part {
   public:
    explicit Part(Ino ino) : ino_(ino) {}  // takes part only after Boots::begin()
    ~Part() {
      if (boots_) boots_->end(ino_);
    }
    Part(const Part&) = delete;
    Part& operator=(const Part&) = delete;
    // Called after a successful read of `top` through the handle.
    void note(blocks::Layer& top, std::uint64_t offset, std::uint64_t size);

   private:
    friend class Boots;
    const Ino ino_;
    Boots* boots_ = nullptr;                      // set by begin()
    std::shared_ptr<boot::Recording> recording_;  // null: this boot is not recorded
  };
  // Called when a handle is opened read-write. Null if that is not a boot.
  std::unique_ptr<Part> begin(const Image& image, const names::InodeRecord& inode) EXCLUDES(mutex_);

  // Whether a virtual machine has the image open as its disk.
  bool is_running(Ino ino) const EXCLUDES(mutex_);

 private:
  struct Boot {
    unsigned parts = 0;
    std::shared_ptr<boot::Recording> recording;
  };
  void join(Part& part, const std::shared_ptr<blocks::Layer>& top) EXCLUDES(mutex_);
  Result<std::shared_ptr<boot::Recording>> prefetch_or_record(Ino ino, const std::shared_ptr<blocks::Layer>& top);
  void end(Ino ino) noexcept EXCLUDES(mutex_);
  void keep_profile(boot::Recording& recording);

  store::Store& store_;
  const boot::BootProfiles& profiles_;
  Prefetcher& prefetcher_;
  mutable Mutex mutex_;
  std::unordered_map<Ino, Boot> running_ GUARDED_BY(mutex_);
};

}  // namespace rekeyfs::images
