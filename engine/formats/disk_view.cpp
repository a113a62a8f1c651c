#include "engine/formats/disk_view.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "engine/base/log.h"
#include "engine/base/mutex.h"

namespace rekeyfs::formats {
namespace {

// How long a read requested by an ended reader may take before another reader is started.
constexpr auto kLastRead = std::chrono::seconds(1);
constexpr std::uint64_t kMaxZeros = std::uint64_t{64} << 30;  // maximum bytes examined per call; the caller asks again

class DiskView final : public Content {
 public:
  DiskView(std::shared_ptr<Content> image, Format format, std::uint64_t size, FormatReaders& readers,
           const std::atomic<uid_t>& user, const Patience& patience)
      : image_(std::move(image)),
        format_(format),
        size_(size),
        readers_(readers),
        user_(user),
        patience_(patience),
        pause_(patience.first_pause) {}

  std::uint64_t size() const override { return size_; }
  Status read(std::uint64_t offset, ByteSpan out) override;
  Result<std::uint64_t> zeros_at(std::uint64_t offset) override;

 private:
  using Clock = std::chrono::steady_clock;
  struct Known {
    std::uint64_t begin = 0, end = 0;
    bool zeros = false;
  };
  // Calls `use` with a reader, once more with another one if the first has ended, and again if one was retired.
  template <typename Use>
  Status with_reader(Use use);
  Result<std::shared_ptr<FormatReader>> running_reader(Clock::time_point deadline) EXCLUDES(mutex_);
  Result<std::shared_ptr<FormatReader>> start_reader(Clock::time_point deadline) REQUIRES(mutex_);
  void note_failure(const Error& error) REQUIRES(mutex_);
  Result<Known> kind_at(std::uint64_t offset) EXCLUDES(known_mutex_);

  const std::shared_ptr<Content> image_;
  const Format format_;
  const std::uint64_t size_;
  FormatReaders& readers_;
  const std::atomic<uid_t>& user_;
  const Patience patience_;
  Mutex mutex_;  // held while a reader starts, so that there is only one
  std::shared_ptr<FormatReader> reader_ GUARDED_BY(mutex_);
  Clock::duration pause_ GUARDED_BY(mutex_);
  Clock::time_point not_before_ GUARDED_BY(mutex_);
  Error cause_ GUARDED_BY(mutex_) = {Errc::io, {}};
  Mutex known_mutex_;
  Known known_ GUARDED_BY(known_mutex_);  // cache: the latest answer about zeros often covers the next question
};

Status DiskView::read(std::uint64_t offset, ByteSpan out) {
  const std::uint64_t within = offset < size_ ? std::min<std::uint64_t>(out.size(), size_ - offset) : 0;
  std::ranges::fill(out.subspan(within), std::byte{0});
  if (within == 0) return {};
  return with_reader([&](FormatReader& reader) { return reader.read(offset, out.first(within)); });
}

Result<std::uint64_t> DiskView::zeros_at(std::uint64_t offset) {
  std::uint64_t end = offset;
  while (end < size_ && end - offset < kMaxZeros) {
    RK_TRY_ASSIGN(const Known known, kind_at(end));
    if (!known.zeros) break;
    end = known.end;
  }
  return end - offset;
}

Result<DiskView::Known> DiskView::kind_at(std::uint64_t offset) {
  {
    Lock lock(known_mutex_);
    if (known_.begin <= offset && offset < known_.end) return known_;
  }
  Known known{.begin = offset, .end = offset, .zeros = false};
  RK_TRY(with_reader([&](FormatReader& reader) -> Status {
    RK_TRY_ASSIGN(const Extent extent, reader.extent_at(offset, size_ - offset));
    known.end = offset + extent.length;
    known.zeros = extent.zeros;
    return {};
  }));
  Lock lock(known_mutex_);
  known_ = known;
  return known;
}

template <typename Use>
Status DiskView::with_reader(Use use) {
  const Clock::time_point deadline = Clock::now() + patience_.turn;
  for (bool has_ended = false;;) {
    RK_TRY_ASSIGN(const std::shared_ptr<FormatReader> reader, running_reader(deadline));
    const Status used = use(*reader);
    const FormatReader::State state = used ? FormatReader::State::running : reader->state();
    if (state == FormatReader::State::retired) continue;
    if (state == FormatReader::State::ended && !std::exchange(has_ended, true)) continue;
    Lock lock(mutex_);
    if (used) pause_ = patience_.first_pause;
    if (state != FormatReader::State::running) note_failure(used.error());
    return used;
  }
}

Result<std::shared_ptr<FormatReader>> DiskView::running_reader(Clock::time_point deadline) {
  Lock lock(mutex_);
  if (reader_ && reader_->state() == FormatReader::State::running) return reader_;
  if (Clock::now() < not_before_) return fail(cause_);
  if (reader_ && !reader_->has_retired_by(deadline)) return fail(Errc::busy, "other reads of the image are still in progress; try again");
  if (reader_ && !reader_->is_done_by(Clock::now() + kLastRead))
    return fail(Errc::io, "a read of the image that the format reader requested is still pending");
  return start_reader(deadline);
}

Result<std::shared_ptr<FormatReader>> DiskView::start_reader(Clock::time_point deadline) {
  reader_.reset();
  not_before_ = {};
  auto started = readers_.start(image_, format_, patience_, user_.load(std::memory_order_relaxed), deadline);
  if (!started && started.error().code == Errc::busy) return started;  // the image is not to blame
  if (started && (*started)->size() != size_)
    started = fail(Errc::io, "the format reader reports a disk of " + std::to_string((*started)->size()) +
                                 " bytes, not of " + std::to_string(size_));
  if (!started) {
    note_failure(started.error());
    return started;
  }
  reader_ = *started;
  return reader_;
}

void DiskView::note_failure(const Error& error) {
  if (not_before_ != Clock::time_point{}) return;  // already noted by another thread
  cause_ = error;
  not_before_ = Clock::now() + pause_;
  pause_ = std::min(2 * pause_, patience_.longest_pause);
  log::warn("the reader of a {} image failed: {}", name_of(format_), describe(error));
}

}  // namespace

std::shared_ptr<Content> open_disk(std::shared_ptr<Content> image, Format format, std::uint64_t size, FormatReaders& readers,
                                   const std::atomic<uid_t>& user, const Patience& patience) {
  if (format == Format::raw) return image;  // the disk is the image
  return std::make_shared<DiskView>(std::move(image), format, size, readers, user, patience);
}

}  // namespace rekeyfs::formats
