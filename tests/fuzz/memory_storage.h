// MemoryStorage: the files of a store in memory, so that an input needs no system calls. Single-threaded.
//
// It simulates a small disk: a file longer than kMaxBytes fails with Errc::no_space.
#pragma once

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <string>

#include "engine/io/storage.h"

namespace rekeyfs {

class MemoryStorage final : public io::Storage {
 public:
  static constexpr std::uint64_t kMaxBytes = 8u << 20;

  // The bytes of a file, which is created if missing. They outlive the file's name.
  std::string& bytes(const std::string& path) {
    std::shared_ptr<std::string>& file = files_[path];
    if (!file) file = std::make_shared<std::string>();
    return *file;
  }
  void clear() { files_.clear(); }

  Result<std::unique_ptr<io::File>> open(std::string_view path, io::OpenMode mode) override {
    const bool there = files_.contains(std::string(path));
    const bool makes = mode == io::OpenMode::create || mode == io::OpenMode::create_new;
    if (there && mode == io::OpenMode::create_new) return fail(Errc::exists);
    if (!there && !makes) return fail(Errc::not_found);
    bytes(std::string(path));
    return std::make_unique<MemoryFile>(files_[std::string(path)]);
  }
  Result<bool> exists(std::string_view path) override { return files_.contains(std::string(path)); }
  Status make_directory(std::string_view) override { return {}; }
  Status remove(std::string_view path) override {
    files_.erase(std::string(path));
    return {};
  }
  Status remove_directory(std::string_view) override { return {}; }
  Status rename(std::string_view from, std::string_view to) override {
    auto file = files_.extract(std::string(from));
    if (!file) return fail(Errc::not_found);
    files_.insert_or_assign(std::string(to), file.mapped());
    return {};
  }
  Result<std::vector<std::string>> list(std::string_view path) override {
    const std::string prefix = path.empty() ? std::string() : std::string(path) + "/";
    std::vector<std::string> names;
    for (const auto& [name, file] : files_)
      if (name.starts_with(prefix) && name.find('/', prefix.size()) == std::string::npos)
        names.push_back(name.substr(prefix.size()));
    return names;
  }
  Status sync_directory(std::string_view) override { return {}; }
  Status sync_all() override { return {}; }
  Result<io::Space> space() override { return io::Space{kMaxBytes, kMaxBytes, kMaxBytes, 1000}; }

 private:
  class MemoryFile final : public io::File {
   public:
    explicit MemoryFile(std::shared_ptr<std::string> bytes) : bytes_(std::move(bytes)) {}
    Result<std::size_t> read(std::uint64_t offset, ByteSpan out) override {
      const std::size_t size = offset < bytes_->size() ? std::min<std::size_t>(out.size(), bytes_->size() - offset) : 0;
      if (size > 0) std::memcpy(out.data(), bytes_->data() + offset, size);
      return size;
    }
    Status write(std::uint64_t offset, ByteView bytes) override {
      if (offset > kMaxBytes || bytes.size() > kMaxBytes - offset) return fail(Errc::no_space);
      bytes_->resize(std::max<std::size_t>(bytes_->size(), offset + bytes.size()));
      bytes_->replace(offset, bytes.size(), as_text(bytes));
      return {};
    }
    Status sync() override { return {}; }
    Status punch(std::uint64_t offset, std::uint64_t size) override {
      for (std::uint64_t at = offset; at < bytes_->size() && at - offset < size; ++at) (*bytes_)[at] = '\0';
      return {};
    }
    Status reserve(std::uint64_t offset, std::uint64_t size) override {
      if (size > kMaxBytes || offset > kMaxBytes - size) return fail(Errc::no_space);
      bytes_->resize(std::max<std::size_t>(bytes_->size(), offset + size));
      return {};
    }
    Result<std::uint64_t> reserved(std::uint64_t, std::uint64_t) override { return 0; }
    Result<std::uint64_t> size() override { return bytes_->size(); }

   private:
    const std::shared_ptr<std::string> bytes_;
  };

  std::map<std::string, std::shared_ptr<std::string>> files_;
};

}  // namespace rekeyfs
