// FaultyStorage: a LocalStorage with simulated disk faults, for tests.
//
// Writes go to the real files immediately, as seen through the page cache. Unsynced writes are recorded, so that
// power_cut() can undo all of them, or a random part in pieces of 4 KiB and torn halves. A hook may make operations
// fail; half of a failed write is then in the file. The name of a new file becomes durable when its directory is
// synced, and so does a removal: before that, a power cut may restore the file. LMDB does its own I/O and is always
// synchronous: its files are always as of its last commit.
#pragma once

#include <functional>
#include <fstream>
#include <filesystem>
#include <map>
#include <memory>
#include <random>
#include <string>

#include "engine/base/mutex.h"
#include "engine/io/local_storage.h"

namespace rekeyfs::test {

class FaultyStorage final : public io::Storage {
 public:
  enum class Operation { read, write, sync, open, remove, allocate, punch };
  // Called before each operation, without locks; if it returns an error, the operation fails with it.
  using Hook = std::function<Status(Operation operation, const std::string& path)>;

  explicit FaultyStorage(const std::string& directory) : directory_(directory), local_(std::move(*io::LocalStorage::open(directory))) {}

  void set_hook(Hook hook) {
    Lock lock(mutex_);
    hook_ = std::move(hook);
  }

  // No file of the storage may be open. `kept`: percentage of unsynced pieces that survive.
  void power_cut(std::uint64_t seed, unsigned kept) {
    Lock lock(mutex_);
    hook_ = nullptr;
    cut_all(directory_, seed, kept);
    files_.clear();
    removed_.clear();
  }

  // Copies the directory as a power cut at this moment would leave it; the storage remains usable. Changes by other
  // threads wait, except LMDB's. data.mdb is copied from its start, because the first pages say which others are valid,
  // and LMDB keeps those for one more commit.
  void copy_as_cut(const std::string& to, std::uint64_t seed, unsigned kept) EXCLUDES(changing_, mutex_) {
    UniqueLock nobody_else(changing_);
    std::filesystem::create_directory(to);
    std::ofstream(to + "/reserve").close();  // the content of the reserve is irrelevant
    std::filesystem::copy(directory_, to, std::filesystem::copy_options::recursive | std::filesystem::copy_options::skip_existing);
    Lock lock(mutex_);
    cut_all(to, seed, kept);
  }

  Result<std::unique_ptr<io::File>> open(std::string_view path, io::OpenMode mode) override {
    RK_TRY(ask(Operation::open, std::string(path)));
    SharedLock changing(changing_);
    RK_TRY_ASSIGN(const bool there, local_->exists(path));
    RK_TRY_ASSIGN(std::unique_ptr<io::File> file, local_->open(path, mode));
    if (!there) {
      Lock lock(mutex_);
      removed_.erase(std::string(path));
      Unsynced& fresh = files_[std::string(path)];
      fresh = {};
      fresh.is_new = true;
    }
    return std::unique_ptr<io::File>(new FaultyFile(*this, std::string(path), std::move(file)));
  }
  Result<bool> exists(std::string_view path) override { return local_->exists(path); }
  Status make_directory(std::string_view path) override { return local_->make_directory(path); }
  Status remove(std::string_view path) override {
    RK_TRY(ask(Operation::remove, std::string(path)));
    SharedLock changing(changing_);
    RK_TRY(remember_removal(std::string(path)));
    return local_->remove(path);
  }
  Status remove_directory(std::string_view path) override { return local_->remove_directory(path); }
  Status rename(std::string_view from, std::string_view to) override { return local_->rename(from, to); }
  Result<std::vector<std::string>> list(std::string_view path) override { return local_->list(path); }
  Status sync_directory(std::string_view path) override {
    RK_TRY(ask(Operation::sync, std::string(path)));
    SharedLock changing(changing_);
    Lock lock(mutex_);
    auto is_in = [&](const std::string& name) { return std::filesystem::path(name).parent_path() == path; };
    for (auto& [name, file] : files_)
      if (is_in(name)) file.is_new = false;
    std::erase_if(removed_, [&](const auto& one) { return is_in(one.first); });
    return {};
  }
  Status sync_all() override {
    RK_TRY(ask(Operation::sync, ""));
    SharedLock changing(changing_);
    Lock lock(mutex_);
    files_.clear();
    removed_.clear();
    return {};
  }
  Result<io::Space> space() override { return local_->space(); }

 private:
  static constexpr std::uint64_t kPiece = 4096;
  struct Piece {
    std::uint64_t serial;
    std::uint64_t offset;
    std::string bytes;
  };
  struct Unsynced {
    bool is_new = false;
    bool touched = false;
    std::uint64_t size = 0;                        // durable size
    std::map<std::uint64_t, std::string> before;   // durable content of pages written since then
    std::vector<Piece> pieces;                     // unsynced writes, in order
  };

  struct Removed {
    std::string content;
    Unsynced unsynced;  // of the removed file's content
  };

  class FaultyFile final : public io::File {
   public:
    FaultyFile(FaultyStorage& storage, std::string path, std::unique_ptr<io::File> file)
        : storage_(storage), path_(std::move(path)), file_(std::move(file)) {}
    Result<std::size_t> read(std::uint64_t offset, ByteSpan out) override {
      RK_TRY(storage_.ask(Operation::read, path_));
      return file_->read(offset, out);
    }
    Status write(std::uint64_t offset, ByteView bytes) override {
      const Status allowed = storage_.ask(Operation::write, path_);
      if (!allowed) bytes = bytes.first(bytes.size() / 2);
      SharedLock changing(storage_.changing_);
      RK_TRY(storage_.remember(path_, *file_, offset, bytes));
      RK_TRY(file_->write(offset, bytes));
      return allowed;
    }
    Status sync() override {
      // A write during a sync is not covered by it.
      const std::uint64_t covered = storage_.begin_sync();
      const Status allowed = storage_.ask(Operation::sync, path_);
      if (!allowed) return allowed;
      SharedLock changing(storage_.changing_);
      return storage_.end_sync(path_, covered);
    }
    Status punch(std::uint64_t offset, std::uint64_t size) override {
      RK_TRY(storage_.ask(Operation::punch, path_));
      SharedLock changing(storage_.changing_);
      RK_TRY(storage_.remember(path_, *file_, offset, std::vector<std::byte>(size)));
      return file_->punch(offset, size);
    }
    Status reserve(std::uint64_t offset, std::uint64_t size) override {
      RK_TRY(storage_.ask(Operation::allocate, path_));
      return file_->reserve(offset, size);
    }
    Result<std::uint64_t> reserved(std::uint64_t offset, std::uint64_t size) override { return file_->reserved(offset, size); }
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
    if (!unsynced.touched && !unsynced.is_new) {
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
      unsynced.pieces.push_back({serial_++, offset, std::string(as_text(bytes.first(size)))});
      bytes = bytes.subspan(size);
      offset += size;
    }
    return {};
  }

  std::uint64_t begin_sync() EXCLUDES(mutex_) {
    Lock lock(mutex_);
    return serial_;
  }
  // Pieces before `covered` are durable; later ones are not.
  Status end_sync(const std::string& path, std::uint64_t covered) EXCLUDES(mutex_) {
    Lock lock(mutex_);
    const auto found = files_.find(path);
    if (found == files_.end()) return {};
    Unsynced& file = found->second;
    std::erase_if(file.pieces, [&](const Piece& piece) {
      if (piece.serial >= covered) return false;
      file.before.at(piece.offset / kPiece).replace(piece.offset % kPiece, piece.bytes.size(), piece.bytes);
      file.size = std::max(file.size, piece.offset + piece.bytes.size());
      return true;
    });
    if (file.pieces.empty() && !file.is_new) files_.erase(found);
    return {};
  }

  Status remember_removal(const std::string& path) EXCLUDES(mutex_) {
    Lock lock(mutex_);
    Removed removed;
    if (const auto unsynced = files_.extract(path)) removed.unsynced = std::move(unsynced.mapped());
    RK_TRY_ASSIGN(const bool there, local_->exists(path));
    if (!there || removed.unsynced.is_new) return {};  // its name was never durable
    std::ifstream file(directory_ + "/" + path, std::ios::binary);
    removed.content.assign(std::istreambuf_iterator<char>(file), {});
    removed_.insert_or_assign(path, std::move(removed));
    return {};
  }

  void cut_all(const std::string& directory, std::uint64_t seed, unsigned kept) REQUIRES(mutex_) {
    std::mt19937_64 random(seed);
    for (const auto& [path, file] : files_) cut(directory + "/" + path, file, random, kept);
    for (const auto& [path, file] : removed_) {
      if (random() % 100 < kept) continue;  // the removal survives
      std::ofstream(directory + "/" + path, std::ios::binary) << file.content;
      cut(directory + "/" + path, file.unsynced, random, kept);
    }
  }
  static void cut(const std::string& path, const Unsynced& file, std::mt19937_64& random, unsigned kept) {
    namespace stdfs = std::filesystem;
    if (!stdfs::exists(path)) return;
    if (file.is_new && random() % 100 >= kept) {
      stdfs::remove(path);
      return;
    }
    if (!file.touched) return;
    std::fstream out(path, std::ios::in | std::ios::out | std::ios::binary);
    auto put = [&](std::uint64_t offset, std::string_view bytes) {
      out.seekp(static_cast<std::streamoff>(offset));
      out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    };
    std::uint64_t size = file.size;
    for (const auto& [page, bytes] : file.before) put(page * kPiece, bytes);
    for (const auto& [serial, offset, bytes] : file.pieces) {
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
  SharedMutex changing_;  // held shared by threads that change files
  Mutex mutex_;
  Hook hook_ GUARDED_BY(mutex_);
  std::uint64_t serial_ GUARDED_BY(mutex_) = 0;  // number of the next piece
  std::map<std::string, Unsynced> files_ GUARDED_BY(mutex_);  // files with unsynced writes
  std::map<std::string, Removed> removed_ GUARDED_BY(mutex_);  // files whose removal is not durable
};

// Refers to a storage with another owner, for a store that is reopened on it repeatedly.
class BorrowedStorage : public io::Storage {
 public:
  explicit BorrowedStorage(io::Storage& lender) : lender_(lender) {}
  Result<std::unique_ptr<io::File>> open(std::string_view path, io::OpenMode mode) override { return lender_.open(path, mode); }
  Result<bool> exists(std::string_view path) override { return lender_.exists(path); }
  Status make_directory(std::string_view path) override { return lender_.make_directory(path); }
  Status remove(std::string_view path) override { return lender_.remove(path); }
  Status remove_directory(std::string_view path) override { return lender_.remove_directory(path); }
  Status rename(std::string_view from, std::string_view to) override { return lender_.rename(from, to); }
  Result<std::vector<std::string>> list(std::string_view path) override { return lender_.list(path); }
  Status sync_directory(std::string_view path) override { return lender_.sync_directory(path); }
  Status sync_all() override { return lender_.sync_all(); }
  Result<io::Space> space() override { return lender_.space(); }

 private:
  io::Storage& lender_;
};

}  // namespace rekeyfs::test
