// TableFile: the name of a layer's table file, and whether that name is durable. Only the checkpoint thread creates and
// syncs it; other threads open it for reading.
#pragma once

#include <atomic>

#include "engine/blocks/slot_files.h"

namespace rekeyfs::blocks {

class TableFile {
 public:
  TableFile(io::Storage& storage, LayerId layer) : storage_(storage), layer_(layer) {}

  Result<std::unique_ptr<io::File>> open(bool create) {
    const std::string path = layer_path(layer_) + ".table";
    auto file = storage_.open(path, io::OpenMode::write);
    if (file || file.error().code != Errc::not_found) return file;
    if (!create) return fail(Errc::corrupt, "the table file " + path + " is missing");
    is_new_ = true;
    return storage_.open(path, io::OpenMode::create);
  }
  // Allocates `bytes` beyond the end of the file, for pages that are written later.
  Status reserve(std::uint64_t bytes) {
    RK_TRY_ASSIGN(const std::unique_ptr<io::File> file, open(true));
    RK_TRY_ASSIGN(const std::uint64_t end, file->size());
    return file->reserve(end, bytes);
  }
  Status sync_name() {
    if (!is_new_.load()) return {};
    RK_TRY(storage_.sync_directory(layer_directory(layer_)));
    is_new_ = false;
    return {};
  }

 private:
  io::Storage& storage_;
  const LayerId layer_;
  std::atomic<bool> is_new_{false};  // its name is not durable yet
};

}  // namespace rekeyfs::blocks
