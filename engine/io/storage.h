// Storage: the files of one store. All file access of the engine goes through it, except LMDB's own I/O.
//
// An interface, so that tests can lose unsynced writes and inject faults, and for other backends. Paths are relative to
// the store ("layers/3f/data.0"), separated by '/', without "." or ".."; symbolic links in them are never followed. All
// members are thread-safe; offsets and sizes are in bytes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/bytes.h"
#include "engine/base/result.h"

namespace rekeyfs::io {

class File {
 public:
  virtual ~File() = default;
  // Fills `out` and returns its size, or less at the end of the file only.
  virtual Result<std::size_t> read(std::uint64_t offset, ByteSpan out) = 0;
  // Writes all of `bytes`; on failure a part may have been written.
  virtual Status write(std::uint64_t offset, ByteView bytes) = 0;
  // Makes all bytes written so far durable, and the metadata needed to read them.
  virtual Status sync() = 0;
  // Frees the space of a range, which then reads as zero. Does not change the size.
  virtual Status punch(std::uint64_t offset, std::uint64_t size) = 0;
  // Allocates space for a range; a shorter file grows to the end of the range, because ext4 punches nothing beyond a
  // file's end.
  virtual Status reserve(std::uint64_t offset, std::uint64_t size) = 0;
  // How many bytes of a range have space allocated; 0 if the file system cannot tell.
  virtual Result<std::uint64_t> reserved(std::uint64_t offset, std::uint64_t size) = 0;
  virtual Result<std::uint64_t> size() = 0;
};

enum class OpenMode {
  read,        // the file must exist
  write,       // the file must exist; read and write
  create,      // created if missing; read and write
  create_new,  // must not exist; read and write
};

struct Space {
  std::uint64_t total = 0;      // bytes
  std::uint64_t available = 0;  // bytes available to an ordinary user
  std::uint64_t free = 0;       // bytes, including those that the file system reserves for root
  std::uint64_t files = 0;      // number of files that can still be created
};

class Storage {
 public:
  virtual ~Storage() = default;
  virtual Result<std::unique_ptr<File>> open(std::string_view path, OpenMode mode) = 0;
  virtual Result<bool> exists(std::string_view path) = 0;
  virtual Status make_directory(std::string_view path) = 0;  // no-op if it exists
  virtual Status remove(std::string_view path) = 0;          // a file; no-op if it is missing
  virtual Status remove_directory(std::string_view path) = 0;  // must be empty; no-op if it is missing
  virtual Status rename(std::string_view from, std::string_view to) = 0;
  virtual Result<std::vector<std::string>> list(std::string_view path) = 0;  // names, unsorted
  virtual Status sync_directory(std::string_view path) = 0;
  // Makes all writes so far to any file of the store durable.
  virtual Status sync_all() = 0;
  virtual Result<Space> space() = 0;
};

}  // namespace rekeyfs::io
