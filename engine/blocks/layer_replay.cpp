#include "engine/blocks/layer_replay.h"

#include <algorithm>
#include <functional>

namespace rekeyfs::blocks {

Result<bool> LayerReplay::verifies(const LayerChange& change) {
  for (std::size_t i = 0; i < change.entries.size(); ++i) {
    const BlockEntry& entry = change.entries[i];
    if (entry.state != BlockState::data) continue;
    const Status opened = blocks_.verify(change.first + i, entry);
    if (opened) continue;
    const Errc code = opened.error().code;
    if (code == Errc::corrupt) return false;
    // Without its key the block cannot be verified. It is kept: once the key is available, reads return the block or an
    // error.
    if (code != Errc::key_revoked && code != Errc::no_key) return fail(opened.error());
  }
  return true;
}

Result<bool> LayerReplay::replay(const LayerChange& change, catalog::SegmentNumber segment, bool verify, GivesUp gives_up) {
  const Opens opens = [&](const LayerChange& some) -> Result<bool> {
    const Result<bool> verified = verifies(some);
    return verified || !gives_up(verified.error()) ? verified : Result<bool>(false);
  };
  if (verify) {
    RK_TRY_ASSIGN(verify, opens(change).map(std::logical_not<>()));
  }
  if (!verify && !left_out_) {
    RK_TRY(blocks_.replay(change, segment));
    return true;
  }
  left_out_ = true;
  return replay_in_part(change, segment, opens);
}

// The size of the change still applies if the bytes between the old end and the new content then read as zero. These
// include the rest of the block in which the old content ends, which is zeros only if the change that zeroed or
// replaced it was not skipped. Otherwise the size does not grow.
Result<bool> LayerReplay::replay_in_part(const LayerChange& change, catalog::SegmentNumber segment, const Opens& opens) {
  const BlockGrid grid = blocks_.grid();
  const std::uint64_t old_size = blocks_.size();
  const BlockIndex old_end = grid.end_block(old_size), last = grid.block_of(old_size);
  RK_TRY_ASSIGN(bool may_grow, blocks_.is_zero_behind(old_size));
  LayerChange one = change;
  if (change.kind == LayerChange::Kind::range) {
    if (!may_grow) one.size = std::min(change.size, old_size);
    RK_TRY(blocks_.replay(one, segment));
    return one.size == change.size;
  }
  bool is_all = true;
  for (std::size_t i = 0; i < change.entries.size(); ++i) {
    one.first = change.first + i;
    one.entries = {change.entries[i]};
    RK_TRY_ASSIGN(const bool is_whole, opens(one));
    may_grow = may_grow || (is_whole && one.first == last);
    if (one.first > last && !may_grow) return false;  // the bytes before this block are not known to be zeros
    one.size = may_grow ? change.size : std::min(change.size, old_size);
    if (!is_whole) {
      one.entries.clear();
      if (one.first >= old_end) one.entries.emplace_back();
    }
    is_all = is_all && is_whole;
    RK_TRY(blocks_.replay(one, segment));
  }
  return is_all;
}

}  // namespace rekeyfs::blocks
