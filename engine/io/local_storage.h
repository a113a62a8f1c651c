// LocalStorage: Storage in a directory of the local file system.
//
// Every path is resolved by openat2(2) below the directory that was opened at the start: no symbolic link, no
// ".." and no /proc link is followed, not even one that is planted while the store is open. What is found where a
// file should be and is something else (a link, a pipe, a device) is Errc::corrupt. "" is the store's directory
// itself. Files are made with mode 0600, directories with 0700.
// Thread-safe: the only state is the directory's descriptor and a count.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "engine/base/descriptor.h"
#include "engine/io/storage.h"

namespace rekeyfs::io {

// What becomes of reads that answer EIO. A check has the first few tried again for half a second: it would take for lost
// what it is not given.
enum class ReadErrors { told_at_once, tried_again };

class LocalStorage final : public Storage {
 public:
  // The directory must exist; symbolic links on the way to it are followed, as it is the user who named it.
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
  // The directory that a path's last component is in, and that component.
  struct Place {
    Descriptor parent;
    std::string name;
  };

  LocalStorage(Descriptor root, std::shared_ptr<std::atomic<int>> waits) : root_(std::move(root)), waits_(std::move(waits)) {}
  Result<Descriptor> open_below(std::string_view path, int flags) const;
  Result<Place> place_of(std::string_view path) const;
  Status unlink(std::string_view path, int flags) const;

  const Descriptor root_;
  const std::shared_ptr<std::atomic<int>> waits_;  // for reads to be tried again, left over all files; null: they are not
};

}  // namespace rekeyfs::io
