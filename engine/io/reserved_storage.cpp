#include "engine/io/reserved_storage.h"

#include <algorithm>
#include <utility>

#include "engine/base/log.h"

namespace rekeyfs::io {
namespace {

using namespace std::chrono_literals;
constexpr auto kLook = 100ms;               // validity of the last answer of the file system
constexpr std::uint64_t kShareOfDisk = 16;  // fraction reserved on a small disk
constexpr std::uint64_t kMinReserve = 256u << 10;  // smaller amounts are not worth reserving
constexpr std::uint64_t kSteps = 16;
constexpr std::uint64_t kFewFiles = 64;     // a checkpoint creates files, too, and their number may be limited

}  // namespace

// A file of the store. Writes to content may not use the reserve; writes to other files may.
class ReservedStorage::ReservedFile final : public File {
 public:
  ReservedFile(ReservedStorage& storage, std::unique_ptr<File> file, bool is_content)
      : storage_(storage), file_(std::move(file)), is_content_(is_content) {}

  Result<std::size_t> read(std::uint64_t offset, ByteSpan out) override { return file_->read(offset, out); }
  Status write(std::uint64_t offset, ByteView bytes) override {
    if (!is_content_) return storage_.with_reserve([&] { return file_->write(offset, bytes); });
    RK_TRY(room_to_write(offset, bytes.size()));
    return file_->write(offset, bytes);
  }
  Status sync() override { return file_->sync(); }
  Status punch(std::uint64_t offset, std::uint64_t size) override { return file_->punch(offset, size); }
  Status reserve(std::uint64_t offset, std::uint64_t size) override {
    if (!is_content_) return storage_.with_reserve([&] { return file_->reserve(offset, size); });
    RK_TRY_ASSIGN(const std::uint64_t held, file_->reserved(offset, size));
    RK_TRY(storage_.room_to_add(size - std::min(size, held)));
    return file_->reserve(offset, size);
  }
  Result<std::uint64_t> reserved(std::uint64_t offset, std::uint64_t size) override { return file_->reserved(offset, size); }
  Result<std::uint64_t> size() override { return file_->size(); }

 private:
  // Space that is already allocated need not be free. The journal record of the write must fit, as for any small
  // change.
  Status room_to_write(std::uint64_t offset, std::uint64_t size) {
    const Status room = storage_.room_to_add(size);
    if (room || room.error().code != Errc::no_space) return room;
    RK_TRY_ASSIGN(const std::uint64_t held, file_->reserved(offset, size));
    return held < size ? room : storage_.room_to_change();
  }

  ReservedStorage& storage_;
  const std::unique_ptr<File> file_;
  const bool is_content_;
};

ReservedStorage::ReservedStorage(std::unique_ptr<Storage> disk, IsContent is_content)
    : disk_(std::move(disk)), is_content_(std::move(is_content)) {}

Status ReservedStorage::adopt() {
  RK_TRY_ASSIGN(const Space space, disk_->space());
  size_ = std::min(kMaxReserve, space.total / kShareOfDisk);
  auto file = disk_->open(kReserveName, OpenMode::write);
  if (!file && file.error().code == Errc::not_found) return {};
  if (!file) return fail(file.error());
  Lock lock(mutex_);
  file_ = std::move(*file);
  held_ = size_;
  adopted_ = true;
  return {};
}

void ReservedStorage::refill() {
  Lock lock(mutex_);
  if (held_ == size_ && !adopted_) return;
  look(true);
  if (held_ > 0 && !adopted_ && left_ < size_) return;
  if (!file_) {
    auto file = disk_->open(kReserveName, OpenMode::create);
    if (!file) return log::warn("cannot reserve space for deletions and recovery: {}", describe(file.error()));
    file_ = std::move(*file);
  }
  adopted_ = false;
  if (allocate(size_)) return look(true);  // no change if the reserve exists already
  static_cast<void>(punch());              // a part may have been allocated
  look(true);
  // Tries less than the file system reports as free, because it may keep a part for itself.
  for (std::uint64_t bytes = std::min(size_, free_); bytes >= kMinReserve; bytes -= std::min(bytes, size_ / kSteps)) {
    if (allocate(bytes)) break;
    static_cast<void>(punch());
  }
  look(true);
}

Status ReservedStorage::allocate(std::uint64_t bytes) {
  RK_TRY(file_->reserve(0, bytes));
  held_ = bytes;
  return {};
}

Status ReservedStorage::punch() {
  RK_TRY_ASSIGN(const std::uint64_t size, file_->size());
  RK_TRY(file_->punch(0, std::max(size, size_)));
  held_ = 0;
  return {};
}

std::uint64_t ReservedStorage::times_given() const {
  Lock lock(mutex_);
  return given_;
}

bool ReservedStorage::give_back(std::uint64_t seen) {
  Lock lock(mutex_);
  if (held_ == 0) return given_ != seen;
  const std::uint64_t given_now = held_;
  if (const Status given = punch(); !given) {
    log::error("cannot release the reserved space: {}", describe(given.error()));
    return false;
  }
  adopted_ = false;
  ++given_;
  look(true);
  half_used_ = free_ - std::min(free_, given_now / 2);
  if (given_now == size_) log::warn("the disk of the store is full, and rekeyfs uses the reserved space: delete images, or free space on the disk");
  return true;
}

void ReservedStorage::look(bool now) {
  if (!now && Clock::now() - looked_ < kLook) return;
  looked_ = Clock::now();
  const auto space = disk_->space();
  left_ = space ? space->available + held_ : 0;
  free_ = space ? space->free : 0;
  if (space && space->files < kFewFiles) left_ = std::min(left_, size_);
}

// The headroom, half the size of the reserve, absorbs ordinary journal records and the file system's own needs, so that
// the reserve is not released and reallocated all the time.
std::uint64_t ReservedStorage::spare() const {
  const std::uint64_t kept = size_ + size_ / 2;
  return left_ > kept ? left_ - kept : 0;
}

Status ReservedStorage::room_to_add(std::uint64_t bytes) {
  Lock lock(mutex_);
  look(false);
  if (spare() < bytes) look(true);
  if (spare() < bytes)
    return fail(Errc::no_space, "No space left on device: the rest is kept for deleting and recovery; delete images, or make room "
                                "on the disk of the store");
  left_ -= bytes;
  return {};
}

Status ReservedStorage::room_to_change() {
  Lock lock(mutex_);
  if (held_ > 0) return {};
  look(false);
  if (free_ > half_used_) return {};
  return fail(Errc::no_space, "No space left on device: the rest is kept for deleting; delete images, or make room on the disk of the store");
}

std::uint64_t ReservedStorage::room_for_checkpoint() {
  Lock lock(mutex_);
  look(false);
  return std::max(size_ / 4, spare() / 2);
}

Result<std::unique_ptr<File>> ReservedStorage::open(std::string_view path, OpenMode mode) {
  const bool is_content = is_content_(path);
  auto opened = is_content ? disk_->open(path, mode) : with_reserve([&] { return disk_->open(path, mode); });
  if (!opened) return opened;
  return std::make_unique<ReservedFile>(*this, std::move(*opened), is_content);
}

Result<Space> ReservedStorage::space() {
  RK_TRY_ASSIGN(Space space, disk_->space());
  Lock lock(mutex_);
  look(true);
  space.available = spare();
  return space;
}

}  // namespace rekeyfs::io
