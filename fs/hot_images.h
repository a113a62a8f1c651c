// HotImages: images that many processes read, decrypted once into memory; the kernel serves them from there without the
// daemon. It tracks how each image is open, because that restricts how the next open may be answered.
//
// An image that was opened for reading twice recently is made hot by a background thread once it is not open. Later
// opens for reading share its copy, unless another process has meanwhile opened the image in the usual way and still
// has it open. While the image is hot and open, it cannot be opened for writing: the kernel would keep serving the copy
// to readers, and a shared mapping of a writer would change only the copy. If the image is hot but not open, an open
// for writing succeeds and the copy is dropped.
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

  // One open of an image, from before the engine opens it until the kernel has released it.
  class Use {
   public:
    Use() = default;  // not tracked
    Use(Use&& other) noexcept = default;
    Use& operator=(Use&&) = delete;
    ~Use();

    // The backing file's number if the open must be answered as a passthrough.
    std::optional<std::int32_t> backing() const { return backing_; }
    void note_opened() const;  // an open for reading has succeeded
    void note_closed() const;  // one of its descriptors was closed; the kernel releases the last one some time later

   private:
    friend class HotImages;
    HotImages* owner_ = nullptr;
    Ino ino_;
    std::shared_ptr<Image> image_;  // null: not tracked
    Purpose purpose_ = Purpose::read;
    std::optional<std::int32_t> backing_;
    mutable bool looks_closed_ = false;  // guarded by the owner's mutex
  };

  HotImages(Engine& engine, const MountOptions& options, const Device& device, Retirement& retirement)
      : engine_(engine), options_(options), device_(device), retirement_(retirement) {}
  ~HotImages();  // no Use may exist any more
  HotImages(const HotImages&) = delete;
  HotImages& operator=(const HotImages&) = delete;

  // Call after the session is mounted, before it serves. If there cannot be hot images, the log says why.
  void start(int session);
  // Call before the session's descriptor is closed. Frees all memory; hot images that are still open read as empty.
  void stop() EXCLUDES(mutex_);

  // Errc::busy: the image is hot and open, and so cannot be changed.
  Result<Use> enter(Ino ino, Purpose purpose) EXCLUDES(mutex_);

  // Invalidates the copies of these images, whether they are open or not. Not for a thread that serves requests.
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

  // The background thread, which decrypts images and drops idle copies.
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
  std::uint64_t used_ GUARDED_BY(mutex_) = 0;  // in bytes, including the copy in progress
  bool stopping_ GUARDED_BY(mutex_) = false;
};

}  // namespace rekeyfs::fs
