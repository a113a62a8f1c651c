// Handles: what fi->fh points to, for every file and directory the kernel holds open.
//
// The table owns them, so that those the kernel never gives back (a forced unmount) are released all the same.
// Opening and closing is locked; a handle in hand is used without the table.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/base/mutex.h"
#include "engine/engine.h"
#include "fs/hot_images.h"

namespace rekeyfs::fs {

// Where a command's answer waits to be fetched through the handle that the command came through. Thread-safe.
class KeptAnswer {
 public:
  struct Piece {
    std::string text;
    std::size_t total = 0;
  };
  void keep(std::string answer) EXCLUDES(mutex_);
  Piece piece(std::uint64_t offset, std::size_t most) EXCLUDES(mutex_);

 private:
  Mutex mutex_;
  std::string answer_ GUARDED_BY(mutex_);
};

// What the handles of one image share.
struct OpenImage {
  std::atomic<unsigned> handles{0};
  unsigned direct_writers = 0;            // guarded by the table's mutex
  std::atomic<bool> looks_closed{false};  // a direct writer's descriptor was closed, and nothing written since
};

// An open image. A `direct` handle bypasses the kernel's page cache.
class FileHandle {
 public:
  FileHandle(Ino ino, OpenFilePtr file, std::shared_ptr<OpenImage> image, bool direct, bool writes, HotImages::Use use)
      : ino_(ino),
        direct_(direct),
        writes_(writes),
        use_(std::move(use)),
        file_(std::move(file)),
        image_(std::move(image)) {}

  Ino ino() const { return ino_; }
  OpenFile& file() const { return *file_; }
  KeptAnswer& answer() { return answer_; }
  bool is_direct() const { return direct_; }
  // Is the image open through another handle as well?
  bool is_shared() const { return image_->handles.load() > 1; }
  void note_written() const {
    if (direct_) image_->looks_closed.store(false, std::memory_order_relaxed);
  }
  void note_closed() const {
    use_.note_closed();
    if (direct_) image_->looks_closed.store(true, std::memory_order_relaxed);
  }

 private:
  friend class HandleTable;
  const Ino ino_;
  const bool direct_;
  const bool writes_;
  const HotImages::Use use_;
  const OpenFilePtr file_;
  const std::shared_ptr<OpenImage> image_;
  KeptAnswer answer_;
};

// An open directory.
class DirectoryHandle {
 public:
  KeptAnswer& answer() { return answer_; }

 private:
  KeptAnswer answer_;
};

class HandleTable {
 public:
  enum class Caching { usual, import };
  // An import bypasses the page cache, unless the image is open already; and while it is written so, everybody else who
  // opens it does too. So cached pages never see a write that passes them by.
  std::uint64_t add_file(Ino ino, OpenFilePtr file, Caching caching, bool writes, HotImages::Use use) EXCLUDES(mutex_);
  std::uint64_t add_directory() EXCLUDES(mutex_);
  void remove_file(std::uint64_t handle) EXCLUDES(mutex_);
  void remove_directory(std::uint64_t handle) EXCLUDES(mutex_);
  std::vector<Ino> open_for_writing() EXCLUDES(mutex_);  // each image once

  static FileHandle& file(std::uint64_t handle) { return *reinterpret_cast<FileHandle*>(handle); }
  static DirectoryHandle& directory(std::uint64_t handle) { return *reinterpret_cast<DirectoryHandle*>(handle); }

 private:
  void await_release(OpenImage& image) REQUIRES(mutex_);

  Mutex mutex_;
  CondVar writer_released_;
  std::unordered_map<std::uint64_t, std::unique_ptr<FileHandle>> files_ GUARDED_BY(mutex_);
  std::unordered_map<std::uint64_t, std::unique_ptr<DirectoryHandle>> directories_ GUARDED_BY(mutex_);
  std::unordered_map<Ino, std::shared_ptr<OpenImage>> images_ GUARDED_BY(mutex_);
};

}  // namespace rekeyfs::fs
