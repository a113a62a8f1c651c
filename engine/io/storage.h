// Storage: the files of one store, and the only way the engine touches them (LMDB does its own I/O).
//
// An interface, so that tests can lose unsynced writes and inject faults, and so that other back ends can
// stand behind it. Paths are relative to the store ("layers/3f/data.0"), '/'-separated, without "." or
// ".."; symbolic links in them are never followed. All members are thread-safe; offsets and sizes are bytes.
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
  // Fills `out` and returns its size; less only at the end of the file.
  virtual Result<std::size_t> read(std::uint64_t offset, ByteSpan out) = 0;
  // Writes all of `bytes` or fails (a part may then have been written).
  virtual Status write(std::uint64_t offset, ByteView bytes) = 0;
  // Durable when it returns: the bytes written so far and what is needed to find them.
  virtual Status sync() = 0;
  // Gives the space of a range back; it reads zero afterwards. Does not change the size.
  virtual Status punch(std::uint64_t offset, std::uint64_t size) = 0;
  // Reserves real space for a range; a file that ends before it grows to its end. (ext4 punches nothing behind the end.)
  virtual Status reserve(std::uint64_t offset, std::uint64_t size) = 0;
  // How many bytes of a range can be written without taking more space; 0 if the file system does not tell.
  virtual Result<std::uint64_t> reserved(std::uint64_t offset, std::uint64_t size) = 0;
  virtual Result<std::uint64_t> size() = 0;
};

enum class OpenMode {
  read,        // the file must exist
  write,       // the file must exist; read and write
  create,      // made if missing; read and write
  create_new,  // must not exist; read and write
};

struct Space {
  std::uint64_t total = 0;      // bytes
  std::uint64_t available = 0;  // bytes an ordinary process may still use
  std::uint64_t free = 0;       // bytes, with those that the file system keeps for root
  std::uint64_t files = 0;      // files that may still be made
};

class Storage {
 public:
  virtual ~Storage() = default;
  virtual Result<std::unique_ptr<File>> open(std::string_view path, OpenMode mode) = 0;
  virtual Result<bool> exists(std::string_view path) = 0;
  virtual Status make_directory(std::string_view path) = 0;  // fine if it exists
  virtual Status remove(std::string_view path) = 0;          // a file; fine if it is missing
  virtual Status remove_directory(std::string_view path) = 0;  // empty; fine if it is missing
  virtual Status rename(std::string_view from, std::string_view to) = 0;
  virtual Result<std::vector<std::string>> list(std::string_view path) = 0;  // names, unsorted
  virtual Status sync_directory(std::string_view path) = 0;
  // Everything written to any file of the store so far is durable when it returns.
  virtual Status sync_all() = 0;
  virtual Result<Space> space() = 0;
};

}  // namespace rekeyfs::io
