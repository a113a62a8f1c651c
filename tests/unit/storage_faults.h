// FaultyStorage: LocalStorage with the faults of a disk, for tests.
//
// What was written goes to the real files at once, as the page cache shows it; what was not synced is remembered, so
// that power_cut() can lose all of it, or any seeded part of it in pieces of 4 KiB and torn halves of them. A hook may
// refuse operations; half of a refused write is then there. A new file's name is durable once its directory is synced. LMDB does its own I/O and is always synchronous: its files are as of its last commit anyway.
#pragma once

#include <functional>
#include <fstream>
#include <filesystem>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>

#include "engine/base/mutex.h"
#include "engine/io/local_storage.h"

namespace rekeyfs::test {

class FaultyStorage final : public io::Storage {
 public:
  enum class Operation { write, sync, open, punch };
  // Asked before each operation, without locks held; an error is what the operation answers.
  using Hook = std::function<Status(Operation operation, const std::string& path)>;

  explicit FaultyStorage(const std::string& directory) : directory_(directory), local_(std::move(*io::LocalStorage::open(directory))) {}

  void set_hook(Hook hook) {
    Lock lock(mutex_);
    hook_ = std::move(hook);
  }

  // No file of the storage is open. `kept` is how many percent of the unsynced pieces survive.
  void power_cut(std::uint64_t seed, unsigned kept) {
    Lock lock(mutex_);
    hook_ = nullptr;
    std::mt19937_64 random(seed);
    for (const std::string& path : std::exchange(new_names_, {})) {
      if (random() % 100 < kept) continue;
      std::filesystem::remove(directory_ + "/" + path);
      files_.erase(path);
    }
    for (auto& [path, file] : files_) cut(directory_ + "/" + path, file, random, kept);
    files_.clear();
  }

  Result<std::unique_ptr<io::File>> open(std::string_view path, io::OpenMode mode) override {
    RK_TRY(ask(Operation::open, std::string(path)));
    RK_TRY_ASSIGN(const bool there, local_->exists(path));
    RK_TRY_ASSIGN(std::unique_ptr<io::File> file, local_->open(path, mode));
    if (!there) {
      Lock lock(mutex_);
      Unsynced& fresh = files_[std::string(path)] = {};
      fresh.touched = true;
      new_names_.insert(std::string(path));
    }
    return std::unique_ptr<io::File>(new FaultyFile(*this, std::string(path), std::move(file)));
  }
  Result<bool> exists(std::string_view path) override { return local_->exists(path); }
  Status make_directory(std::string_view path) override { return local_->make_directory(path); }
  Status remove(std::string_view path) override {
    {
      Lock lock(mutex_);
      files_.erase(std::string(path));
      new_names_.erase(std::string(path));
    }
    return local_->remove(path);
  }
  Status remove_directory(std::string_view path) override { return local_->remove_directory(path); }
  Status rename(std::string_view from, std::string_view to) override { return local_->rename(from, to); }
  Result<std::vector<std::string>> list(std::string_view path) override { return local_->list(path); }
  Status sync_directory(std::string_view path) override {
    RK_TRY(ask(Operation::sync, std::string(path)));
    Lock lock(mutex_);
    std::erase_if(new_names_, [&](const std::string& name) { return std::filesystem::path(name).parent_path() == path; });
    return {};
  }
  Status sync_all() override {
    RK_TRY(ask(Operation::sync, ""));
    Lock lock(mutex_);
    files_.clear();
    new_names_.clear();
    return {};
  }
  Result<io::Space> space() override { return local_->space(); }

 private:
  static constexpr std::uint64_t kPiece = 4096;
  struct Unsynced {
    bool touched = false;
    std::uint64_t size = 0;                        // durable
    std::map<std::uint64_t, std::string> before;   // durable content of the pages written since
    std::vector<std::pair<std::uint64_t, std::string>> pieces;  // written since, in order
  };

  class FaultyFile final : public io::File {
   public:
    FaultyFile(FaultyStorage& storage, std::string path, std::unique_ptr<io::File> file)
        : storage_(storage), path_(std::move(path)), file_(std::move(file)) {}
    Result<std::size_t> read(std::uint64_t offset, ByteSpan out) override { return file_->read(offset, out); }
    Status write(std::uint64_t offset, ByteView bytes) override {
      const Status allowed = storage_.ask(Operation::write, path_);
      if (!allowed) bytes = bytes.first(bytes.size() / 2);
      RK_TRY(storage_.remember(path_, *file_, offset, bytes));
      RK_TRY(file_->write(offset, bytes));
      return allowed;
    }
    Status sync() override {
      // What is written while a sync runs is not covered by it.
      const Unsynced covered = storage_.begin_sync(path_);
      const Status allowed = storage_.ask(Operation::sync, path_);
      if (!allowed) return allowed;
      return storage_.end_sync(path_, *file_, covered);
    }
    Status punch(std::uint64_t offset, std::uint64_t size) override {
      RK_TRY(storage_.ask(Operation::punch, path_));
      RK_TRY(storage_.remember(path_, *file_, offset, std::vector<std::byte>(size)));
      return file_->punch(offset, size);
    }
    Status allocate(std::uint64_t size) override { return file_->allocate(size); }
    Result<std::uint64_t> size() override { return file_->size(); }

   private:
    FaultyStorage& storage_;
    const std::string path_;
    const std::unique_ptr<io::File> file_;
  };

  Status ask(Operation operation, const std::string& path) EXCLUDES(mutex_) {
    Hook hook;
    {
      Lock lock(mutex_);
      hook = hook_;
    }
    return hook ? hook(operation, path) : Status{};
  }

  Status remember(const std::string& path, io::File& file, std::uint64_t offset, ByteView bytes) EXCLUDES(mutex_) {
    Lock lock(mutex_);
    Unsynced& unsynced = files_[path];
    if (!unsynced.touched) {
      RK_TRY_ASSIGN(unsynced.size, file.size());
    }
    unsynced.touched = true;
    while (!bytes.empty()) {
      const std::uint64_t page = offset / kPiece;
      if (!unsynced.before.contains(page)) {
        std::string old(kPiece, '\0');
        RK_TRY(file.read(page * kPiece, {reinterpret_cast<std::byte*>(old.data()), old.size()}));
        unsynced.before.emplace(page, std::move(old));
      }
      const std::size_t size = std::min<std::uint64_t>(bytes.size(), (page + 1) * kPiece - offset);
      unsynced.pieces.emplace_back(offset, as_text(bytes.first(size)));
      bytes = bytes.subspan(size);
      offset += size;
    }
    return {};
  }

  Unsynced begin_sync(const std::string& path) EXCLUDES(mutex_) {
    Lock lock(mutex_);
    return files_[path];
  }
  // The pieces of `covered` are durable; those that came later are not.
  Status end_sync(const std::string& path, io::File& file, const Unsynced& covered) EXCLUDES(mutex_) {
    Lock lock(mutex_);
    Unsynced& now = files_[path];
    const std::size_t later = now.pieces.size() - covered.pieces.size();
    if (later == 0) {
      files_.erase(path);
      return {};
    }
    for (const auto& [offset, bytes] : covered.pieces) {
      std::string& page = now.before.at(offset / kPiece);
      page.replace(offset % kPiece, bytes.size(), bytes);
      now.size = std::max(now.size, offset + bytes.size());
    }
    now.pieces.erase(now.pieces.begin(), now.pieces.begin() + static_cast<std::ptrdiff_t>(covered.pieces.size()));
    return file.size() ? Status{} : fail(Errc::io);
  }

  static void cut(const std::string& path, const Unsynced& file, std::mt19937_64& random, unsigned kept) {
    namespace stdfs = std::filesystem;
    if (!stdfs::exists(path)) return;
    if (!file.touched) return;
    std::fstream out(path, std::ios::in | std::ios::out | std::ios::binary);
    auto put = [&](std::uint64_t offset, std::string_view bytes) {
      out.seekp(static_cast<std::streamoff>(offset));
      out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    };
    std::uint64_t size = file.size;
    for (const auto& [page, bytes] : file.before) put(page * kPiece, bytes);
    for (const auto& [offset, bytes] : file.pieces) {
      if (random() % 100 >= kept) continue;
      const std::size_t survived = random() % 4 == 0 ? bytes.size() / 2 : bytes.size();
      put(offset, std::string_view(bytes).substr(0, survived));
      size = std::max<std::uint64_t>(size, offset + survived);
    }
    out.close();
    stdfs::resize_file(path, size);
  }

  const std::string directory_;
  const std::unique_ptr<io::LocalStorage> local_;
  Mutex mutex_;
  Hook hook_ GUARDED_BY(mutex_);
  std::map<std::string, Unsynced> files_ GUARDED_BY(mutex_);  // those with something unsynced
  std::set<std::string> new_names_ GUARDED_BY(mutex_);        // of files whose directory was not synced since
};

}  // namespace rekeyfs::test
