// LocalStorage: Storage in a directory of the local file system.
//
// Every path is resolved by openat2(2) below the directory that was opened at the start: no symbolic link, no
// ".." and no /proc link is followed, not even one that is planted while the store is open. What is found where a
// file should be and is something else (a link, a pipe, a device) is Errc::corrupt. "" is the store's directory
// itself. Files are made with mode 0600, directories with 0700. allocate() makes a shorter file as long as it
// reserves. Thread-safe: the only state is the directory's descriptor.
#pragma once

#include <memory>
#include <string>

#include "engine/io/descriptor.h"
#include "engine/io/storage.h"

namespace rekeyfs::io {

class LocalStorage final : public Storage {
 public:
  // The directory must exist; symbolic links on the way to it are followed, as it is the user who named it.
  static Result<std::unique_ptr<LocalStorage>> open(const std::string& directory);

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

  explicit LocalStorage(Descriptor root) : root_(std::move(root)) {}
  Result<Descriptor> open_below(std::string_view path, int flags) const;
  Result<Place> place_of(std::string_view path) const;
  Status unlink(std::string_view path, int flags) const;

  const Descriptor root_;
};

}  // namespace rekeyfs::io
