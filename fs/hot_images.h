// HotImages: images that many open to read, decrypted once into memory, from where the kernel serves them past the
// daemon. Knows who has which image open, since that decides in which way the next one may open it.
//
// An image that was opened to read twice lately is made hot when nobody has it open, on a thread of its own; those who
// open it from then on share its copy, unless somebody was faster who still has it open in the usual way. While it is
// hot and open nobody can open it to change it: what the kernel serves to readers, and what a writer maps, would be a
// copy that nobody keeps. Where one of the two would have to be refused, but nobody has the image open, the change wins
// and the copy goes.
//
// Thread-safe. Without CAP_SYS_ADMIN, or on a kernel without passthrough, it does nothing.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/base/mutex.h"
#include "engine/engine.h"
#include "fs/device.h"
#include "fs/hot_memory.h"
#include "fs/mount.h"
#include "fs/passthrough.h"
#include "fs/retirement.h"

namespace rekeyfs::fs {

class HotImages {
 public:
  enum class Purpose { read, change };
  struct Image;

  // One opening of an image, from before the engine is asked for it until the kernel has released it.
  class Use {
   public:
    Use() = default;  // of nothing that could be hot
    Use(Use&& other) noexcept = default;
    Use& operator=(Use&&) = delete;
    ~Use();

    // If it has to be answered as a passthrough: the number of its backing file.
    std::optional<std::int32_t> backing() const { return backing_; }
    void note_opened() const;  // for reading: it has succeeded
    void note_closed() const;  // a descriptor of it was closed; the kernel releases the last one some time later

   private:
    friend class HotImages;
    HotImages* owner_ = nullptr;
    Ino ino_;
    std::shared_ptr<Image> image_;  // null: nothing to leave
    Purpose purpose_ = Purpose::read;
    std::optional<std::int32_t> backing_;
    mutable bool looks_closed_ = false;  // guarded by the owner's mutex
  };

  HotImages(Engine& engine, const MountOptions& options, const Device& device, Retirement& retirement)
      : engine_(engine), options_(options), device_(device), retirement_(retirement) {}
  ~HotImages();  // every Use is gone
  HotImages(const HotImages&) = delete;
  HotImages& operator=(const HotImages&) = delete;

  // Once the session is mounted, before it serves. The log says why there will be no hot images, if so.
  void start(int session);
  // Before the session's descriptor is closed. Nothing is in memory any more; what was open reads nothing.
  void stop() EXCLUDES(mutex_);

  // Errc::busy: the image is hot and open, so that nobody can change it.
  Result<Use> enter(Ino ino, Purpose purpose) EXCLUDES(mutex_);

  // What is in memory of them counts no more, be they open or not. Not for a thread that serves requests.
  void withdraw(const std::set<Ino>& images) EXCLUDES(mutex_);
  void withdraw_all() EXCLUDES(mutex_);

 private:
  struct Copy;
  using Clock = std::chrono::steady_clock;
  using ImagePtr = std::shared_ptr<Image>;
  using CopyPtr = std::unique_ptr<Copy>;

  bool is_enabled() const { return memory_ && device_.passes_through(); }
  ImagePtr image_for(Ino ino) REQUIRES(mutex_);
  CopyPtr take_copy(Image& image) REQUIRES(mutex_);
  CopyPtr take_back(Ino ino) EXCLUDES(mutex_);
  void leave(const Use& use) EXCLUDES(mutex_);
  void note_opened(const Use& use) EXCLUDES(mutex_);
  void note_closed(const Use& use) EXCLUDES(mutex_);

  // The thread that decrypts, and forgets.
  void run() EXCLUDES(mutex_);
  void make_hot(Ino ino, const ImagePtr& image) EXCLUDES(mutex_);
  Result<CopyPtr> copy_of(Ino ino, const ImagePtr& image) EXCLUDES(mutex_);
  Result<CopyPtr> fill(OpenFile& file, std::uint64_t size, std::uint64_t bytes, const ImagePtr& image) EXCLUDES(mutex_);
  Status reserve(std::uint64_t bytes) EXCLUDES(mutex_);
  std::vector<CopyPtr> forget_idle() REQUIRES(mutex_);

  Engine& engine_;
  const MountOptions& options_;
  const Device& device_;
  Retirement& retirement_;
  int session_ = -1;
  std::optional<HotMemory> memory_;
  std::thread thread_;

  Mutex mutex_;
  CondVar work_;
  CondVar released_;
  std::unordered_map<Ino, ImagePtr> images_ GUARDED_BY(mutex_);
  std::deque<std::pair<Ino, ImagePtr>> wanted_ GUARDED_BY(mutex_);
  std::uint64_t used_ GUARDED_BY(mutex_) = 0;  // bytes, with those of the copy being made
  bool stopping_ GUARDED_BY(mutex_) = false;
};

}  // namespace rekeyfs::fs
