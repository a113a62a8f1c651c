// LocalStorage: a Storage in a directory of the local file system.
//
// Every path is resolved by openat2(2) below the directory opened at the start: no symbolic link, no ".." and no /proc
// link is followed, even if it is created while the store is open. If a path that should be a regular file is anything
// else (a link, a pipe, a device), the call fails with Errc::corrupt. "" is the store's directory itself. New files
// have mode 0600, new directories 0700. Thread-safe: the only state is the directory's descriptor and a counter.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "engine/base/descriptor.h"
#include "engine/io/storage.h"

namespace rekeyfs::io {

// What to do about reads that fail with EIO. A check retries the first few for half a second, because it would report
// unreadable data as lost.
enum class ReadErrors { told_at_once, tried_again };

class LocalStorage final : public Storage {
 public:
  // The directory must exist. Symbolic links in `directory` itself are followed, because the user named it.
  static Result<std::unique_ptr<LocalStorage>> open(const std::string& directory, ReadErrors read_errors = ReadErrors::told_at_once);

  Result<std::unique_ptr<File>> open(std::string_view path, OpenMode mode) override;
  Result<bool> exists(std::string_view path) override;
  Status make_directory(std::string_view path) override;
  Status remove(std::string_view path) override;
  Status remove_directory(std::string_view path) override;
  Status rename(std::string_view from, std::string_view to) override;
  Result<std::vector<std::string>> list(std::string_view path) override;
  Status sync_directory(std::string_view path) override;
  Status sync_all() override;
  Result<Space> space() override;

 private:
  // The parent directory of a path's last component, and that component.
  struct Place {
    Descriptor parent;
    std::string name;
  };

  LocalStorage(Descriptor root, std::shared_ptr<std::atomic<int>> waits) : root_(std::move(root)), waits_(std::move(waits)) {}
  Result<Descriptor> open_below(std::string_view path, int flags) const;
  Result<Place> place_of(std::string_view path) const;
  Status unlink(std::string_view path, int flags) const;

  const Descriptor root_;
  // Remaining retries of failed reads, shared by all files; null: no retries.
  const std::shared_ptr<std::atomic<int>> waits_;
};

}  // namespace rekeyfs::io
