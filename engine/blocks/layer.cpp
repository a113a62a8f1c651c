#include "engine/blocks/layer.h"

#include <algorithm>
#include <utility>

#include "engine/blocks/scratch.h"
#include "engine/formats/disk_view.h"

namespace rekeyfs::blocks {

Layer::Layer(const Parts& parts, LayerId id, const LayerRecord& record, const LayerTableRecord& table,
             std::unique_ptr<LayerCipher> cipher, std::shared_ptr<const BaseRef> base)
    : id_(id),
      record_(record),
      grid_{record.block_shift},
      blocks_(parts.blocks, id, grid_, table, std::move(cipher)),
      flush_(blocks_),
      replay_(blocks_),
      sharing_(parts.blocks.catalog, id),
      below_{std::move(base), nullptr} {
  if (record.base_format != formats::Format::raw)
    below_.disk = formats::open_disk(below_.base->layer(), record.base_format, record.disk_size, parts.format_readers, asker_);
}

// Destroys bases that have no other holder iteratively, because a chain of clones may be longer than the stack is deep:
// each ~Layer() hands its base to the outermost one.
Layer::~Layer() {
  thread_local std::shared_ptr<const BaseRef>* next = nullptr;  // where a nested ~Layer() leaves its base
  below_.disk.reset();
  if (next) {
    *next = std::move(below_.base);
    return;
  }
  std::shared_ptr<const BaseRef> base = std::move(below_.base);
  next = &base;
  while (base) std::exchange(base, nullptr).reset();
  next = nullptr;
}

Layer::Below Layer::below() const {
  SharedLock lock(below_mutex_);
  return below_;
}

std::shared_ptr<Layer> Layer::base() const {
  const std::shared_ptr<const BaseRef> base = below().base;
  return base ? base->layer() : nullptr;
}

bool Layer::is_all_base() const {
  const Below below = this->below();
  return below.base && !below.disk && blocks_.is_all(TableRoot::State::base);
}

void Layer::drop_base() {
  Below gone;  // destroyed after the lock is released, because closing a disk may end a process
  UniqueLock lock(below_mutex_);
  gone = std::exchange(below_, {});
}

// --- reading ---------------------------------------------------------------------------------------------------

// Iterative, because base chains can be thousands deep.
Status Layer::read(std::uint64_t offset, ByteSpan out, std::vector<Taken>* taken) {
  std::vector<Piece> pieces;
  RK_TRY(read_here(offset, out, taken, pieces));
  while (!pieces.empty()) {
    const Piece piece = std::move(pieces.back());
    pieces.pop_back();
    RK_TRY(piece.base->layer()->read_here(piece.offset, piece.out, piece.taken, pieces));
  }
  return {};
}

Status Layer::read_here(std::uint64_t offset, ByteSpan out, std::vector<Taken>* taken, std::vector<Piece>& left) {
  const std::uint64_t content = size();
  const std::size_t inside = offset < content ? std::min<std::uint64_t>(out.size(), content - offset) : 0;
  fill_zero(out.subspan(inside));
  out = out.first(inside);
  if (out.empty()) return {};

  const BlockIndex end = end_block(offset + out.size());
  BlockIndex index = block_of(offset);
  RK_TRY_ASSIGN(const std::vector<BlockTable::Run> runs, blocks_.runs_of(index, end));
  for (std::size_t i = 0; i < runs.size();) {
    // Consecutive blocks of one state, or in adjacent slots, are read with one call.
    std::vector<BlockEntry> entries;
    BlockIndex piece_end = index;
    const BlockState state = runs[i].entry.state;
    do {
      if (state == BlockState::data) entries.push_back(runs[i].entry);
      piece_end += runs[i++].length;
    } while (i < runs.size() && runs[i].entry.state == state &&
             (state != BlockState::data || runs[i].entry.slot == entries.back().slot + 1));

    const std::uint64_t from = std::max(offset, offset_of(index));
    const std::uint64_t to = std::min(offset + out.size(), offset_of(piece_end));
    const ByteSpan part = out.subspan(from - offset, to - from);
    if (state == BlockState::hole) {
      fill_zero(part);
    } else if (state == BlockState::data) {
      RK_TRY_ASSIGN(const std::size_t done, blocks_.read(index, entries, from, part));
      if (done < part.size()) RK_TRY(read(from + done, part.subspan(done)));
    } else if (state == BlockState::lost) {
      return fail(lost(index));
    } else {
      RK_TRY_ASSIGN(const Below below, below_for(index));
      RK_TRY(below.base ? read_below(below, from, part, taken, left) : read_here(from, part, taken, left));
    }
    index = piece_end;
  }
  return {};
}

Error Layer::lost(BlockIndex index) const {
  return {Errc::corrupt, "block " + std::to_string(index) + " of layer " + std::to_string(id_.value()) +
                             " was lost with a page of its table: restore the image from a copy"};
}

// If several layers of a chain keep what they read, only the topmost one stores it.
Status Layer::read_below(const Below& below, std::uint64_t offset, ByteSpan out, std::vector<Taken>* taken,
                         std::vector<Piece>& left) {
  const bool keeps = taken && keeps_reads();
  if (below.disk) RK_TRY(below.disk->read(offset, out));
  else left.push_back({below.base, offset, out, keeps ? nullptr : taken});
  if (keeps) taken->push_back({shared_from_this(), offset, out.size()});
  return {};
}

// For a block whose entry was "base" a moment ago. Empty if the block has been stored since and the base was released.
Result<Layer::Below> Layer::below_for(BlockIndex index) {
  Below below = this->below();
  if (below.base) return below;
  RK_TRY_ASSIGN(const BlockTable::Run now, blocks_.find(index));
  if (now.entry.state == BlockState::base)
    return fail(Errc::corrupt, "layer " + std::to_string(id_.value()) + " reads from a base layer and has none");
  return below;
}

Result<std::uint64_t> Layer::zeros_at(std::uint64_t offset) {
  RK_TRY_ASSIGN(Zeros zeros, zeros_here(offset));
  while (zeros.below.base && !zeros.below.disk) {
    RK_TRY_ASSIGN(Zeros below, zeros.below.base->layer()->zeros_here(offset));
    zeros = {std::min(zeros.bytes, below.bytes), std::move(below.below)};
  }
  if (!zeros.below.disk) return zeros.bytes;
  RK_TRY_ASSIGN(const std::uint64_t below, zeros.below.disk->zeros_at(offset));
  return std::min(zeros.bytes, below);
}

Result<Layer::Zeros> Layer::zeros_here(std::uint64_t offset) {
  if (offset >= size()) return Zeros{RangeLock::kEnd - offset, {}};
  const BlockIndex index = block_of(offset);
  RK_TRY_ASSIGN(const BlockTable::Run run, blocks_.find(index));
  if (run.entry.state == BlockState::data || run.entry.state == BlockState::lost) return Zeros{0, {}};
  const BlockIndex end = std::min(run.length, (RangeLock::kEnd >> grid_.shift) - index) + index;
  const std::uint64_t bytes = offset_of(end) - offset;
  if (run.entry.state == BlockState::hole) return Zeros{bytes, {}};
  RK_TRY_ASSIGN(Below below, below_for(index));
  if (!below.base) return zeros_here(offset);
  return Zeros{bytes, std::move(below)};
}

Result<std::uint64_t> Layer::find_data(std::uint64_t offset) {
  const std::uint64_t end = size();
  while (offset < end) {
    RK_TRY_ASSIGN(const std::uint64_t zeros, zeros_at(offset));
    if (zeros == 0) return offset;
    offset = zeros < end - offset ? offset + zeros : end;
  }
  return end;
}

Result<std::uint64_t> Layer::find_hole(std::uint64_t offset) {
  const std::uint64_t end = size();
  while (offset < end) {
    RK_TRY_ASSIGN(const std::uint64_t zeros, zeros_at(offset));
    if (zeros > 0) return offset;
    offset = offset_of(block_of(offset) + 1);
  }
  return end;
}

// --- changing --------------------------------------------------------------------------------------------------

// Locks [first, end), extended to the block in which the content ends if that comes earlier. Returns the size at that
// time.
std::pair<RangeLock::Held, std::uint64_t> Layer::acquire_with_tail(BlockIndex first, BlockIndex end) {
  for (;;) {
    const BlockIndex from = std::min(first, block_of(size()));
    RangeLock::Held held = ranges_.acquire(from, end);
    const std::uint64_t now = size();
    // Otherwise the content was truncated before the lock was taken.
    if (from <= block_of(now)) return {std::move(held), now};
  }
}

Status Layer::write(std::uint64_t offset, ByteView bytes, const Touch& touch) {
  flush_.wait_for_relief();
  const auto [held, old_size] = acquire_with_tail(block_of(offset), end_block(offset + bytes.size()));
  return write_held(offset, bytes, old_size, touch);
}

Status Layer::write_held(std::uint64_t offset, ByteView bytes, std::uint64_t old_size, const Touch& touch) {
  if (offset > old_size) RK_TRY(prepare_extension(old_size, offset));
  LayerChange change;
  change.first = block_of(offset);
  change.size = offset + bytes.size();
  if (const Status stored = store_bytes(offset, bytes, old_size, change.entries); !stored) {
    blocks_.abandon(change.entries);
    return stored;
  }
  return blocks_.commit(std::move(change), true, touch);
}

// Completes partially written blocks with their old content.
Status Layer::store_bytes(std::uint64_t at, ByteView left, std::uint64_t old_size, std::vector<BlockEntry>& entries) {
  auto store_and_append = [&](BlockIndex index, ByteView plain) -> Status {
    RK_TRY_ASSIGN(const std::vector<BlockEntry> stored, blocks_.store(index, plain));
    entries.insert(entries.end(), stored.begin(), stored.end());
    return {};
  };
  while (!left.empty()) {
    const BlockIndex index = block_of(at);
    const std::uint64_t start = offset_of(index);
    // End of the old content in this block.
    const std::uint64_t kept_to = std::min(std::max(old_size, start), start + grid_.block_size());
    const bool whole = at == start && (left.size() >= grid_.block_size() || at + left.size() >= kept_to);
    if (whole) {
      std::size_t size = left.size() / grid_.block_size() * grid_.block_size();
      if (size == 0 || (left.size() > size && old_size <= at + left.size())) size = left.size();
      RK_TRY(store_and_append(index, left.first(size)));
      left = left.subspan(size);
      at += size;
    } else {
      const std::size_t size = std::min<std::uint64_t>(left.size(), start + grid_.block_size() - at);
      Scratch block(std::max(kept_to, at + size) - start);
      fill_zero(block.span());
      RK_TRY(read(start, block.span().first(kept_to - start)));
      std::memcpy(&block.span()[at - start], left.data(), size);
      RK_TRY(store_and_append(index, block.span()));
      left = left.subspan(size);
      at += size;
    }
  }
  return {};
}

// The blocks between the old end and `offset` were never content; makes them read as zero before they become content.
Status Layer::prepare_extension(std::uint64_t old_size, std::uint64_t offset) {
  RK_TRY(zero_tail(old_size));
  const BlockIndex first = end_block(old_size);
  const BlockIndex end = end_block(offset);
  RK_TRY_ASSIGN(const std::vector<BlockTable::Run> runs, blocks_.runs_of(first, std::max(first, end)));
  const bool all_holes = std::all_of(runs.begin(), runs.end(), [](const auto& r) { return r.entry.state == BlockState::hole; });
  if (all_holes) return {};
  LayerChange change;
  change.kind = LayerChange::Kind::range;
  change.first = first;
  change.end = end;
  return blocks_.commit(std::move(change), true, {});
}

// Zeros the part of the last block beyond the size, so that it does not appear when the size grows.
Status Layer::zero_tail(std::uint64_t size) {
  RK_TRY_ASSIGN(const bool is_zero, blocks_.is_zero_behind(size));
  if (is_zero) return {};
  const BlockIndex index = block_of(size);
  Scratch block(size % grid_.block_size());
  RK_TRY(read(offset_of(index), block.span()));
  LayerChange change;
  change.first = index;
  RK_TRY_ASSIGN(change.entries, blocks_.store(index, block.span()));
  return blocks_.commit(std::move(change), true, {});
}

Status Layer::resize(std::uint64_t new_size, const Touch& touch) {
  const auto [held, old_size] = acquire_with_tail(block_of(new_size), RangeLock::kEnd);
  LayerChange change;
  change.kind = LayerChange::Kind::range;
  change.size = new_size;
  if (new_size > old_size) {
    RK_TRY(prepare_extension(old_size, new_size));
  } else {
    change.first = end_block(new_size);
    change.end = RangeLock::kEnd;
  }
  RK_TRY(blocks_.commit(std::move(change), false, touch));
  return new_size < old_size ? blocks_.release_tail(end_block(new_size), end_block(old_size)) : Status{};
}

Status Layer::grow(std::uint64_t new_size, const Touch& touch) {
  const auto [held, old_size] = acquire_with_tail(block_of(new_size), RangeLock::kEnd);
  if (new_size <= old_size) return {};
  RK_TRY(prepare_extension(old_size, new_size));
  LayerChange change;
  change.kind = LayerChange::Kind::range;
  change.size = new_size;
  return blocks_.commit(std::move(change), true, touch);
}

Status Layer::promise(std::uint64_t offset, std::uint64_t count) {
  const auto held = ranges_.acquire(block_of(offset), end_block(offset + count));
  return blocks_.promise(block_of(offset), end_block(offset + count));
}

// Whole blocks only: a part of the other blocks may still be promised.
Status Layer::release(std::uint64_t offset, std::uint64_t count) {
  const BlockIndex first = end_block(offset), end = block_of(offset + count);
  if (first >= end) return {};
  const auto held = ranges_.acquire(first, end);
  return blocks_.release(first, end);
}

Result<std::uint64_t> Layer::growth_by(std::uint64_t offset, std::uint64_t count, bool beyond_promised) {
  const BlockIndex first = block_of(offset), end = end_block(offset + count);
  return beyond_promised ? blocks_.bytes_to_promise(first, end) : blocks_.bytes_without_data(first, end);
}

Status Layer::zero(std::uint64_t offset, std::uint64_t count, const Touch& touch) {
  if (count == 0) return {};
  const std::uint64_t wanted = offset + std::min(count, ~std::uint64_t{0} - offset);
  const auto [held, content] = acquire_with_tail(block_of(offset), block_of(wanted - 1) + 1);
  if (offset >= content) return {};
  const std::uint64_t end = std::min(content, wanted);
  const BlockIndex first = end_block(offset);
  const BlockIndex last = end == content ? end_block(end) : block_of(end);
  const std::vector<std::byte> zeros(grid_.block_size());
  const std::uint64_t head_end = std::min(end, offset_of(first));
  if (offset < head_end) RK_TRY(write_held(offset, ByteView(zeros).first(head_end - offset), content, touch));
  if (last >= first && offset_of(last) < end && end < content)
    RK_TRY(write_held(offset_of(last), ByteView(zeros).first(end - offset_of(last)), content, touch));
  if (first >= last) return {};
  LayerChange change;
  change.kind = LayerChange::Kind::range;
  change.first = first;
  change.end = last;
  return blocks_.commit(std::move(change), true, touch);
}

Status Layer::extend_over_base(std::uint64_t new_size, const Touch& touch) {
  const auto [held, old_size] = acquire_with_tail(block_of(new_size), RangeLock::kEnd);
  if (new_size <= old_size) return {};
  std::uint64_t from = old_size;
  if (from % grid_.block_size() != 0) {
    // The previous piece may have ended in this block, which is then stored short: copy the rest of it as bytes.
    const std::uint64_t to = std::min(new_size, offset_of(block_of(from) + 1));
    Scratch rest(to - from);
    RK_TRY(below().content()->read(from, rest.span()));
    RK_TRY(write_held(from, rest.span(), from, touch));
    from = to;
  }
  LayerChange change;
  change.kind = LayerChange::Kind::range;
  change.first = end_block(from);
  change.end = end_block(new_size);
  change.state = BlockState::base;
  change.size = new_size;
  return blocks_.commit(std::move(change), true, touch);
}

Status Layer::take_from_base(std::uint64_t offset, std::uint64_t count, const Touch& touch) {
  auto held = ranges_.acquire(block_of(offset), end_block(offset + count));
  LayerChange change;
  change.kind = LayerChange::Kind::range;
  change.first = end_block(offset);
  change.end = block_of(offset + count);
  change.state = BlockState::base;
  return blocks_.commit(std::move(change), true, touch);
}

// --- filling ---------------------------------------------------------------------------------------------------

Result<std::uint64_t> Layer::fill(BlockIndex first, std::uint64_t most) {
  constexpr std::uint64_t kMaxLooks = 4096;  // blocks without work are skipped quickly, but not without a bound
  BlockIndex index = first;
  RK_TRY_ASSIGN(BlockTable::Run run, blocks_.find(index));
  for (std::uint64_t looks = 0; run.entry.state != BlockState::base && looks < kMaxLooks; ++looks) {
    const BlockIndex end = end_block(size());
    if (index >= end) return index - first;
    if (run.entry.state == BlockState::lost) return fail(lost(index));  // it may have been in state "base"
    index += std::min(run.length, end - index);
    RK_TRY_ASSIGN(run, blocks_.find(index));
  }
  if (index > first || run.entry.state != BlockState::base) return index - first;

  RK_TRY_ASSIGN(const Below below, below_for(index));
  if (!below.base) return 1;
  RK_TRY_ASSIGN(const std::uint64_t zeros, below.content()->zeros_at(offset_of(index)));
  const std::uint64_t zero_blocks = zeros >> grid_.shift;
  const std::uint64_t count = std::min(run.length, zero_blocks > 0 ? zero_blocks : most);

  auto held = ranges_.acquire(index, index + count);
  const std::uint64_t content = size();
  const BlockIndex end = std::min(index + count, end_block(content));
  RK_TRY_ASSIGN(run, blocks_.find(index));
  if (index >= end || run.entry.state != BlockState::base) return index >= end ? 0 : std::min(run.length, end - index);
  const BlockIndex run_end = std::min(end, index + run.length);

  LayerChange change;
  change.first = index;
  if (zero_blocks > 0) {
    change.kind = LayerChange::Kind::range;
    change.end = run_end;
  } else {
    Scratch plain(std::min(offset_of(run_end), content) - offset_of(index));
    RK_TRY(below.content()->read(offset_of(index), plain.span()));
    RK_TRY_ASSIGN(change.entries, blocks_.store(index, plain.span()));
  }
  RK_TRY(blocks_.commit(std::move(change), true, {}));
  return run_end - index;
}

Status Layer::keep(std::uint64_t offset, ByteView plain) {
  const std::uint64_t end = offset + plain.size();
  BlockIndex index = end_block(offset);
  auto held = ranges_.acquire(index, end_block(end));
  const std::uint64_t content = size();
  const BlockIndex end_index = end >= content ? end_block(content) : block_of(end);
  while (index < end_index) {
    RK_TRY_ASSIGN(const BlockTable::Run run, blocks_.find(index));
    const BlockIndex run_end = std::min(end_index, index + run.length);
    if (run.entry.state == BlockState::base) {
      const std::uint64_t from = offset_of(index);
      const std::uint64_t to = std::min(std::min(offset_of(run_end), content), end);
      LayerChange change;
      change.first = index;
      RK_TRY_ASSIGN(change.entries, blocks_.store(index, plain.subspan(from - offset, to - from)));
      RK_TRY(blocks_.commit(std::move(change), true, {}));
    }
    index = run_end;
  }
  return {};
}

}  // namespace rekeyfs::blocks
