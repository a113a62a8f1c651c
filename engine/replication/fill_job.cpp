#include "engine/replication/fill_job.h"

#include <algorithm>

namespace rekeyfs::replication {
namespace {
constexpr std::uint64_t kStep = 64;  // blocks that a worker takes at a time: 1 MiB
}

FillJob::FillJob(Ino image, std::shared_ptr<blocks::Layer> filled, uid_t user, std::string why, std::deque<Piece> boot_pieces)
    : ino(image),
      layer(std::move(filled)),
      asker(user),
      boot(std::move(boot_pieces)),
      next(layer->filled()),
      error(std::move(why)),
      done_before(next * layer->block_size()),
      stored_before(layer->stored()) {}

FillJob::Piece FillJob::take_piece() {
  Piece piece{next, next + kStep};
  if (boot.empty()) {
    next = piece.end;
  } else {
    piece = boot.front();
    boot.pop_front();
  }
  in_hand.insert(piece.first);
  return piece;
}

void FillJob::give_back(const Piece& piece, BlockIndex reached, bool succeeded) {
  in_hand.erase(in_hand.find(piece.first));
  if (!succeeded) next = std::min(next, piece.first);
  else if (piece.is_in_order) next = std::max(next, reached);  // skips a run of holes at once
}

BlockIndex FillJob::filled() const {
  const BlockIndex all_before = in_hand.empty() ? next : std::min(next, *in_hand.begin());
  return std::min(all_before, end());
}

Progress FillJob::progress() const {
  Progress now;
  now.ino = ino;
  now.total = layer->size();
  now.done = std::min(now.total, layer->filled() * layer->block_size());
  const double seconds = std::chrono::duration<double>(Clock::now() - begun).count();
  if (seconds > 0.05 && now.done > done_before) now.rate = static_cast<double>(now.done - done_before) / seconds;
  now.error = error;
  return now;
}

double Progress::percent() const {
  return total == 0 ? 0 : std::min(99.9, 100.0 * static_cast<double>(done) / static_cast<double>(total));
}

}  // namespace rekeyfs::replication
