#include "engine/images/prefetcher.h"

#include <algorithm>

#include "engine/base/log.h"

namespace rekeyfs::images {
namespace {

using namespace std::chrono_literals;
constexpr std::uint64_t kPiece = 256u << 10;  // bytes; a reader that comes meanwhile waits for at most one piece
constexpr Background::Duration kGiveWay = 1ms;
constexpr auto kLongest = 2min;  // the boot is over by then
constexpr auto kFresh = 30s;     // how long prefetched data is assumed to stay in the page cache
constexpr int kNice = 10;

}  // namespace

Prefetcher::Prefetcher(const replication::Readers& readers, replication::CopyOnRead& copy_on_read)
    : readers_(readers), copy_on_read_(copy_on_read), background_("prefetcher", kNice) {}

Status Prefetcher::start() {
  return background_.start([this] { return step(); });
}

void Prefetcher::prefetch(Ino ino, const std::shared_ptr<blocks::Layer>& layer, boot::BootProfiles::Found found) {
  const Clock::time_point begun = Clock::now();
  {
    Lock lock(mutex_);
    std::erase_if(prefetched_, [&](const auto& before) { return begun - before.second > kFresh; });
    if (!prefetched_.emplace(found.layer, begun).second) return;
    const std::vector<boot::Run>& runs = found.profile.runs;
    jobs_.push_back({ino, layer, found.layer, {runs.begin(), runs.end()}, begun + kLongest});
  }
  background_.wake();
}

void Prefetcher::forget(Ino ino) {
  Lock lock(mutex_);
  std::erase_if(jobs_, [&](const Job& job) NO_THREAD_SAFETY_ANALYSIS {
    if (job.ino == ino) prefetched_.erase(job.profile_of);  // not prefetched completely
    return job.ino == ino;
  });
}

// Waiting readers come first, then storing what they got.
bool Prefetcher::may_work() const { return !readers_.are_busy() && copy_on_read_.is_idle(); }

bool Prefetcher::has_work() const {
  Lock lock(mutex_);
  return !jobs_.empty();
}

Background::Duration Prefetcher::step() {
  if (!has_work()) return Background::kUntilWoken;
  if (!may_work()) return kGiveWay;
  const Piece piece = next_piece();
  if (!piece.layer) return Background::Duration::zero();
  const Status status = read(piece);
  // The reader that needs the block gets the error.
  if (!status) log::debug("prefetch of layer {}: {}", piece.layer->id().value(), describe(status.error()));
  return Background::Duration::zero();
}

Prefetcher::Piece Prefetcher::next_piece() {
  Piece piece;
  Lock lock(mutex_);
  while (!jobs_.empty() && (jobs_.front().left.empty() || Clock::now() > jobs_.front().until)) jobs_.pop_front();
  if (jobs_.empty()) return piece;
  Job& job = jobs_.front();
  boot::Run& run = job.left.front();
  const auto count = std::min(run.count, static_cast<std::uint32_t>(kPiece / boot::BootProfile::kUnit));
  piece = {job.layer, run.first * boot::BootProfile::kUnit, count * boot::BootProfile::kUnit};
  run.first += count;
  run.count -= count;
  if (run.count == 0) job.left.pop_front();
  return piece;
}

Status Prefetcher::read(const Piece& piece) {
  const std::uint64_t content = piece.layer->size();
  if (piece.offset >= content) return {};
  RK_TRY(piece.layer->may_use_key());
  std::vector<std::byte> bytes(std::min(piece.size, content - piece.offset));
  std::vector<blocks::Taken> taken;
  RK_TRY(piece.layer->read(piece.offset, bytes, &taken));
  copy_on_read_.offer(taken, piece.offset, bytes);
  return {};
}

}  // namespace rekeyfs::images
