// Boots: what the first instance of a disk reads when it boots is recorded as its boot profile, and read ahead for the
// instances that follow.
//
// An image that fast create made, or a clone of one, counts as booted by a virtual machine while it is open read-write:
// copiers and checksummers open it to read. Nothing here ever fails an open, a read or a close. Thread-safe.
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
  Boots(store::Store& store, const boot::BootProfiles& profiles, Prefetcher& prefetcher)  // all outlive it
      : store_(store), profiles_(profiles), prefetcher_(prefetcher) {}

  // One open handle's part in a boot, which is over when the last part goes.
  class Part {
   public:
    explicit Part(Ino ino) : ino_(ino) {}  // joined by Boots
    ~Part() {
      if (boots_) boots_->end(ino_);
    }
    Part(const Part&) = delete;
    Part& operator=(const Part&) = delete;
    // A read of `top` through the handle that has succeeded.
    void note(blocks::Layer& top, std::uint64_t offset, std::uint64_t size);

   private:
    friend class Boots;
    const Ino ino_;
    Boots* boots_ = nullptr;                      // set when it has joined
    std::shared_ptr<boot::Recording> recording_;  // null: the boot is not recorded
  };
  // For a handle that was opened read-write. Null if that is no boot.
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
