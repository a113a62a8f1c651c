// Handles: the objects behind fi->fh, one for each file and directory that the kernel holds open.
//
// The table owns them, so that handles that the kernel never releases (a forced unmount) are destroyed, too. Opening
// and closing take the lock; operations use a handle without the table.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <fcntl.h>

#include "engine/base/mutex.h"
#include "engine/engine.h"
#include "fs/hot_images.h"
#include "fs/kept_answers.h"
#include "fs/openings.h"

namespace rekeyfs::fs {

inline bool is_opened_for_writing(int flags) {
  return (flags & O_ACCMODE) != O_RDONLY;
}

// An open image.
class FileHandle {
 public:
  FileHandle(Ino ino, int flags, HotImages::Use use, OpenFilePtr file, std::unique_ptr<Openings::Opening> opening)
      : ino_(ino), flags_(flags), use_(std::move(use)), file_(std::move(file)), opening_(std::move(opening)) {}

  Ino ino() const { return ino_; }
  OpenFile& file() const { return *file_; }
  const Openings::Opening& opening() const { return *opening_; }
  KeptAnswer& answer() { return answer_; }
  bool writes() const { return is_opened_for_writing(flags_); }
  // Opened with O_SYNC or O_DSYNC: every change through the handle is durable when it returns.
  bool is_synchronous() const { return (flags_ & (O_SYNC | O_DSYNC)) != 0; }
  void note_closed() const {
    use_.note_closed();
    opening_->note_closed();
  }

 private:
  const Ino ino_;
  const int flags_;  // flags of open(2)
  const HotImages::Use use_;
  const OpenFilePtr file_;
  const std::unique_ptr<Openings::Opening> opening_;  // destroyed first, because destroying file_ may take a while
  KeptAnswer answer_;
};

// An open directory.
class DirectoryHandle {
 public:
  KeptAnswer& answer() { return answer_; }
  // A new secret that stands for the directory in commands that come through another descriptor. Valid until the next
  // one is drawn and while this handle is open.
  std::string draw_token(Ino directory) EXCLUDES(mutex_);
  std::optional<Ino> directory_with(std::string_view token) const EXCLUDES(mutex_);

 private:
  KeptAnswer answer_;
  mutable Mutex mutex_;
  std::string token_ GUARDED_BY(mutex_);
  Ino named_ GUARDED_BY(mutex_);  // directory that the token stands for
};

class HandleTable {
 public:
  std::uint64_t add_file(std::unique_ptr<FileHandle> handle) EXCLUDES(mutex_);
  std::uint64_t add_directory() EXCLUDES(mutex_);
  void remove_file(std::uint64_t handle) EXCLUDES(mutex_);
  void remove_directory(std::uint64_t handle) EXCLUDES(mutex_);
  std::optional<Ino> directory_with(std::string_view token) EXCLUDES(mutex_);
  std::vector<Ino> open_for_writing() EXCLUDES(mutex_);  // without duplicates

  static FileHandle& file(std::uint64_t handle) { return *reinterpret_cast<FileHandle*>(handle); }
  static DirectoryHandle& directory(std::uint64_t handle) { return *reinterpret_cast<DirectoryHandle*>(handle); }

 private:
  Mutex mutex_;
  std::unordered_map<std::uint64_t, std::unique_ptr<FileHandle>> files_ GUARDED_BY(mutex_);
  std::unordered_map<std::uint64_t, std::unique_ptr<DirectoryHandle>> directories_ GUARDED_BY(mutex_);
};

}  // namespace rekeyfs::fs
