#include "engine/blocks/layer.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <utility>

#include "engine/base/log.h"
#include "engine/formats/disk_view.h"

namespace rekeyfs::blocks {
namespace {

// A block may be replaced while it is read; more often than this it is not chance.
constexpr int kMostRetries = 16;
// Slots in limbo beyond which writers wait for the checkpoint that is under way: those of 128 MiB of 16 KiB blocks.
constexpr std::uint64_t kMostLimbo = 8192;
constexpr auto kMostWait = std::chrono::milliseconds(50);  // if that checkpoint fails, say, they go on all the same
// Slots that stay allocated while a layer is being rewritten: to give back and allocate again costs a file system more
// than all the rest of a small write. A kill leaves at most these behind.
constexpr std::size_t kMostIdle = 8192;
// In limbo for no record's sake: the next checkpoint gives the slot back.
constexpr catalog::SegmentNumber kNoSegment = 0;

bool is_zero(ByteView bytes) {
  return bytes.empty() || (bytes[0] == std::byte{0} && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

void fill_zero(ByteSpan out) { std::fill(out.begin(), out.end(), std::byte{0}); }

std::vector<std::byte> make_buffer(std::size_t size) { return std::vector<std::byte>(size); }

// Memory that is written before it is read.
class Scratch {
 public:
  explicit Scratch(std::size_t size) : bytes_(std::make_unique_for_overwrite<std::byte[]>(size)), size_(size) {}
  ByteSpan span() { return {bytes_.get(), size_}; }

 private:
  std::unique_ptr<std::byte[]> bytes_;
  std::size_t size_;
};

}  // namespace

Layer::Layer(const Parts& parts, LayerId id, const LayerRecord& record, const LayerTableRecord& table,
             std::unique_ptr<LayerCipher> cipher, std::shared_ptr<const BaseRef> base)
    : id_(id),
      record_(record),
      block_size_(1u << record.block_shift),
      storage_(parts.storage),
      catalog_(parts.catalog),
      observer_(parts.observer),
      cipher_(std::move(cipher)),
      files_(parts.storage, id, block_size_),
      sharing_(parts.catalog, id),
      below_{std::move(base), nullptr},
      table_(id, parts.table_mac,
             [this](bool create) { return open_table_file(create); },
             table.root, parts.budget),
      size_(table.size),
      stored_(table.stored),
      filled_(table.filled),
      next_spill_(table.next_spill) {
  if (record.base_format != formats::Format::raw)
    below_.disk = formats::open_disk(below_.base->layer(), record.base_format, record.disk_size, parts.format_readers);
}

// Bases that nobody else holds go one after the other, each when the layer above it has gone: a chain of clones may be
// longer than a stack is deep.
Layer::~Layer() {
  thread_local std::shared_ptr<const BaseRef>* next = nullptr;  // where the layer that goes leaves its base
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
  SharedLock lock(mutex_);
  return below_;
}
std::shared_ptr<Layer> Layer::base() const {
  const std::shared_ptr<const BaseRef> base = below().base;
  return base ? base->layer() : nullptr;
}
std::uint64_t Layer::size() const {
  SharedLock lock(mutex_);
  return size_;
}
std::uint64_t Layer::stored() const {
  SharedLock lock(mutex_);
  return stored_;
}
std::uint64_t Layer::filled() const {
  SharedLock lock(mutex_);
  return filled_;
}
Status Layer::set_filled(BlockIndex next) {
  UniqueLock lock(mutex_);
  filled_ = next;
  mark_changed();
  return {};
}
bool Layer::is_all_base() const {
  SharedLock lock(mutex_);
  return below_.base && !below_.disk && table_.is_uniform(TableRoot::State::base);
}
void Layer::drop_base() {
  Below gone;  // after the lock: what shows a disk may have to end a process
  UniqueLock lock(mutex_);
  gone = std::exchange(below_, {});
}

// --- reading ---------------------------------------------------------------------------------------------------

Result<BlockTable::Run> Layer::find(BlockIndex index) {
  {
    SharedLock lock(mutex_);
    RK_TRY_ASSIGN(const auto run, table_.find_cached(index));
    if (run) return *run;
  }
  UniqueLock lock(mutex_);
  return table_.find(index);
}

Result<std::vector<BlockTable::Run>> Layer::runs_of(BlockIndex first, BlockIndex end) {
  std::vector<BlockTable::Run> runs;
  BlockIndex index = first;
  auto take = [&](BlockTable::Run run) {
    run.length = std::min(run.length, end - index);
    index += run.length;
    runs.push_back(run);
  };
  {
    SharedLock lock(mutex_);
    while (index < end) {
      RK_TRY_ASSIGN(const auto run, table_.find_cached(index));
      if (!run) break;
      take(*run);
    }
  }
  if (index == end) return runs;
  UniqueLock lock(mutex_);
  while (index < end) {
    RK_TRY_ASSIGN(const BlockTable::Run run, table_.find(index));
    take(run);
  }
  return runs;
}

// Down the bases in a loop, as ~Layer() goes.
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
  RK_TRY_ASSIGN(const std::vector<BlockTable::Run> runs, runs_of(index, end));
  for (std::size_t i = 0; i < runs.size();) {
    // Blocks of one state, and of slots side by side, are read as one piece.
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
      RK_TRY(read_data(index, entries, from, part));
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

// Of a chain of layers that want to keep what they get, the topmost one does.
Status Layer::read_below(const Below& below, std::uint64_t offset, ByteSpan out, std::vector<Taken>* taken,
                         std::vector<Piece>& left) {
  const bool keeps = taken && keeps_reads();
  if (below.disk) RK_TRY(below.disk->read(offset, out));
  else left.push_back({below.base, offset, out, keeps ? nullptr : taken});
  if (keeps) taken->push_back({shared_from_this(), offset, out.size()});
  return {};
}

// For a block whose entry said "from base" a moment ago; nothing if the block has come here since and the base is gone.
Result<Layer::Below> Layer::below_for(BlockIndex index) {
  Below below = this->below();
  if (below.base) return below;
  RK_TRY_ASSIGN(const BlockTable::Run now, find(index));
  if (now.entry.state == BlockState::base)
    return fail(Errc::corrupt, "layer " + std::to_string(id_.value()) + " needs a base layer and has none");
  return below;
}

// `out` covers all or part of blocks from `first` on, whose slots lie side by side.
Status Layer::read_data(BlockIndex first, const std::vector<BlockEntry>& entries, std::uint64_t offset, ByteSpan out) {
  std::size_t i = 0;
  while (!out.empty()) {
    const std::uint64_t start = offset_of(first + i);
    const std::size_t whole = offset == start ? out.size() / block_size_ : 0;
    if (whole == 0) {
      const std::size_t part = std::min<std::uint64_t>(out.size(), start + block_size_ - offset);
      RK_TRY(read_one(first + i, entries[i], offset - start, out.first(part)));
      out = out.subspan(part);
      offset += part;
      ++i;
      continue;
    }
    RK_TRY(files_.read(entries[i].slot, out.first(whole * block_size_)));
    for (std::size_t n = 0; n < whole; ++n, ++i) {
      const ByteSpan block = out.subspan(n * block_size_, block_size_);
      const ByteSpan sealed = block.first(stored_size(entries[i]));
      if (cipher_->open(first + i, entries[i], sealed, sealed)) fill_zero(block.subspan(sealed.size()));
      else RK_TRY(read_one(first + i, entries[i], 0, block));
    }
    out = out.subspan(whole * block_size_);
    offset += whole * block_size_;
  }
  return {};
}

// A part of one block. The slot may have got a newer owner since the entry was looked up: then look again.
Status Layer::read_one(BlockIndex index, BlockEntry entry, std::uint64_t offset, ByteSpan out) {
  Scratch scratch(block_size_);
  for (int attempt = 0; attempt < kMostRetries; ++attempt) {
    const ByteSpan sealed = scratch.span().first(stored_size(entry));
    RK_TRY(files_.read(entry.slot, sealed));
    const Status opened = cipher_->open(index, entry, sealed, sealed);
    if (opened) {
      fill_zero(scratch.span().subspan(sealed.size()));
      std::memcpy(out.data(), &scratch.span()[offset], out.size());
      return {};
    }
    if (opened.error().code != Errc::corrupt) return opened;
    RK_TRY_ASSIGN(const BlockTable::Run now, find(index));
    if (now.entry == entry) break;
    if (now.entry.state != BlockState::data) return read(offset_of(index) + offset, out);
    entry = now.entry;
  }
  return fail(Errc::corrupt, "block " + std::to_string(index) + " of layer " + std::to_string(id_.value()) +
                                 " does not verify: it is damaged or was replaced");
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
  RK_TRY_ASSIGN(const BlockTable::Run run, find(index));
  if (run.entry.state == BlockState::data || run.entry.state == BlockState::lost) return Zeros{0, {}};
  const BlockIndex end = std::min(run.length, (RangeLock::kEnd >> record_.block_shift) - index) + index;
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

// Locks [first, end), and from the block the content ends in if that comes before; the size at that moment.
std::pair<RangeLock::Held, std::uint64_t> Layer::acquire_with_tail(BlockIndex first, BlockIndex end) {
  for (;;) {
    const BlockIndex from = std::min(first, block_of(size()));
    RangeLock::Held held = ranges_.acquire(from, end);
    const std::uint64_t now = size();
    if (from <= block_of(now)) return {std::move(held), now};  // else it was truncated before we had the lock
  }
}

Status Layer::write(std::uint64_t offset, ByteView bytes, const Touch& touch) {
  wait_for_relief();
  const auto [held, old_size] = acquire_with_tail(block_of(offset), end_block(offset + bytes.size()));
  return write_held(offset, bytes, old_size, touch);
}

// Small writes supersede slots faster than a disk makes their successors durable.
void Layer::wait_for_relief() {
  if (pressure().limbo_slots <= kMostLimbo) return;
  Lock lock(relief_);
  relieved_.wait_for(relief_, kMostWait);
}

Status Layer::write_held(std::uint64_t offset, ByteView bytes, std::uint64_t old_size, const Touch& touch) {
  if (offset > old_size) RK_TRY(prepare_extension(old_size, offset));
  LayerChange change;
  change.first = block_of(offset);
  change.size = offset + bytes.size();
  if (const Status stored = store_bytes(offset, bytes, old_size, change.entries); !stored) {
    UniqueLock lock(mutex_);
    abandon(change.entries);
    return stored;
  }
  return commit(std::move(change), true, touch);
}

// Blocks written in part keep the rest of what they had.
Status Layer::store_bytes(std::uint64_t at, ByteView left, std::uint64_t old_size, std::vector<BlockEntry>& entries) {
  auto store_and_append = [&](BlockIndex index, ByteView plain) -> Status {
    RK_TRY_ASSIGN(const std::vector<BlockEntry> stored, store(index, plain));
    entries.insert(entries.end(), stored.begin(), stored.end());
    return {};
  };
  while (!left.empty()) {
    const BlockIndex index = block_of(at);
    const std::uint64_t start = offset_of(index);
    const std::uint64_t kept_to = std::min(std::max(old_size, start), start + block_size_);  // old content's end in this block
    const bool whole = at == start && (left.size() >= block_size_ || at + left.size() >= kept_to);
    if (whole) {
      std::size_t size = left.size() / block_size_ * block_size_;
      if (size == 0 || (left.size() > size && old_size <= at + left.size())) size = left.size();
      RK_TRY(store_and_append(index, left.first(size)));
      left = left.subspan(size);
      at += size;
    } else {
      const std::size_t size = std::min<std::uint64_t>(left.size(), start + block_size_ - at);
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

// Seals blocks and writes them to free slots. `plain` starts at a block; its last one may be short, then the rest
// of it is zeros.
Result<std::vector<BlockEntry>> Layer::store(BlockIndex first, ByteView plain) {
  std::vector<BlockEntry> entries(end_block(plain.size()));
  auto block_at = [&](auto bytes, std::size_t i) {
    return bytes.subspan(i * block_size_, std::min<std::size_t>(block_size_, bytes.size() - i * block_size_));
  };
  for (std::size_t i = 0; i < entries.size(); ++i)
    if (!is_zero(block_at(plain, i))) entries[i].state = BlockState::data;  // the others stay holes
  RK_TRY(choose_slots(first, entries));

  Scratch sealed(plain.size());
  Status status;
  for (std::size_t i = 0; i < entries.size() && status; ++i)
    if (entries[i].state == BlockState::data)
      status = cipher_->seal(first + i, block_at(plain, i), block_at(sealed.span(), i), entries[i]);
  if (status) status = write_slots(entries, sealed.span());
  if (status) return entries;
  UniqueLock lock(mutex_);
  abandon(entries);
  return fail(status.error());
}

// Slots side by side are written as one piece.
Status Layer::write_slots(const std::vector<BlockEntry>& entries, ByteView sealed) {
  auto is_data = [&](std::size_t i) { return i < entries.size() && entries[i].state == BlockState::data; };
  for (std::size_t i = 0; i < entries.size();) {
    const std::size_t from = i++;
    if (!is_data(from)) continue;
    while (is_data(i) && entries[i].slot == entries[i - 1].slot + 1) ++i;
    const std::size_t end = std::min(i * block_size_, sealed.size());
    RK_TRY(files_.write(entries[from].slot, sealed.subspan(from * block_size_, end - from * block_size_)));
  }
  return {};
}

Status Layer::choose_slots(BlockIndex first, std::vector<BlockEntry>& entries) {
  UniqueLock lock(mutex_);
  RK_TRY(catch_up());  // else the slots of a change on record would look free
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].state != BlockState::data) continue;
    const auto slot = choose_slot(first + i);
    if (!slot) {
      entries.resize(i);
      abandon(entries);
      return fail(slot.error());
    }
    entries[i].slot = *slot;
  }
  return {};
}

Result<Slot> Layer::choose_slot(BlockIndex index) {
  if (index >= kBlockEnd) return fail(Errc::too_large, "an image cannot have that many blocks");
  const Slot home = index;
  RK_TRY_ASSIGN(const BlockTable::Run run, table_.find(index));
  const bool home_in_use = run.entry.state == BlockState::data && run.entry.slot == home;
  if (!home_in_use && !limbo_.contains(home)) {
    idle_.erase(home);
    return home;
  }
  if (const auto idle = idle_.lower_bound(kSpillBit); idle != idle_.end()) return idle_.extract(idle).value();
  if (const auto punched = punched_spill_.take()) return *punched;
  if (next_spill_ >= kSlotEnd - kSpillBit)
    return fail(Errc::too_large, "the image has used up its spill slots: copy it, and go on with the copy");
  return kSpillBit | next_spill_++;
}

void Layer::abandon(const std::vector<BlockEntry>& entries) {
  for (const BlockEntry& entry : entries)
    if (entry.state == BlockState::data) limbo_.add(entry.slot, kNoSegment);
  mark_changed();
}

// The blocks between the old end and `offset` were never content: make sure they read zero once they are.
Status Layer::prepare_extension(std::uint64_t old_size, std::uint64_t offset) {
  RK_TRY(zero_tail(old_size));
  const BlockIndex first = end_block(old_size);
  const BlockIndex end = end_block(offset);
  RK_TRY_ASSIGN(const std::vector<BlockTable::Run> runs, runs_of(first, std::max(first, end)));
  const bool all_holes = std::all_of(runs.begin(), runs.end(), [](const auto& r) { return r.entry.state == BlockState::hole; });
  if (all_holes) return {};
  LayerChange change;
  change.kind = LayerChange::Kind::range;
  change.first = first;
  change.end = end;
  return commit(std::move(change), true, {});
}

// What the last block holds beyond the size must not appear when the size grows.
Status Layer::zero_tail(std::uint64_t size) {
  RK_TRY_ASSIGN(const bool is_zero, is_zero_behind(size));
  if (is_zero) return {};
  const BlockIndex index = block_of(size);
  Scratch block(size % block_size_);
  RK_TRY(read(offset_of(index), block.span()));
  LayerChange change;
  change.first = index;
  RK_TRY_ASSIGN(change.entries, store(index, block.span()));
  return commit(std::move(change), true, {});
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
  return commit(std::move(change), false, touch);
}

Status Layer::zero(std::uint64_t offset, std::uint64_t count, const Touch& touch) {
  if (count == 0) return {};
  const std::uint64_t wanted = offset + std::min(count, ~std::uint64_t{0} - offset);
  const auto [held, content] = acquire_with_tail(block_of(offset), block_of(wanted - 1) + 1);
  if (offset >= content) return {};
  const std::uint64_t end = std::min(content, wanted);
  const BlockIndex first = end_block(offset);
  const BlockIndex last = end == content ? end_block(end) : block_of(end);
  const std::vector<std::byte> zeros = make_buffer(block_size_);
  const std::uint64_t head_end = std::min(end, offset_of(first));
  if (offset < head_end) RK_TRY(write_held(offset, ByteView(zeros).first(head_end - offset), content, touch));
  if (last >= first && offset_of(last) < end && end < content)
    RK_TRY(write_held(offset_of(last), ByteView(zeros).first(end - offset_of(last)), content, touch));
  if (first >= last) return {};
  LayerChange change;
  change.kind = LayerChange::Kind::range;
  change.first = first;
  change.end = last;
  return commit(std::move(change), true, touch);
}

Status Layer::extend_over_base(std::uint64_t new_size, const Touch& touch) {
  const auto [held, old_size] = acquire_with_tail(block_of(new_size), RangeLock::kEnd);
  if (new_size <= old_size) return {};
  std::uint64_t from = old_size;
  if (from % block_size_ != 0) {
    // The block the last piece ended in may have been stored short by now: bring its rest in as bytes.
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
  return commit(std::move(change), true, touch);
}

Status Layer::take_from_base(std::uint64_t offset, std::uint64_t count, const Touch& touch) {
  auto held = ranges_.acquire(block_of(offset), end_block(offset + count));
  LayerChange change;
  change.kind = LayerChange::Kind::range;
  change.first = end_block(offset);
  change.end = block_of(offset + count);
  change.state = BlockState::base;
  return commit(std::move(change), true, touch);
}

Status Layer::commit(LayerChange change, bool may_grow, const Touch& touch) {
  Lock changing(changing_);
  RK_TRY(prepare_change());
  if (may_grow) change.size = std::max(change.size, size());
  const auto segment = record(change, touch);
  UniqueLock lock(mutex_);
  if (!segment) {
    abandon(change.entries);
    return fail(segment.error());
  }
  unapplied_.emplace(Recorded{std::move(change), *segment});
  return catch_up();
}

// Before the record is in the journal: a checkpoint that ends its segment must know of this layer, or it would trim the
// record without having it in the table.
Status Layer::prepare_change() {
  UniqueLock lock(mutex_);
  RK_TRY(catch_up());
  may_idle_ = true;
  mark_changed();
  return {};
}

// A change is on record before it is in the table. What keeps it from getting there (no memory, no descriptor to read a
// page by) may pass; until then the layer takes no other change, and a checkpoint, which would trim the record, fails.
Status Layer::catch_up() {
  if (!unapplied_) return {};
  if (std::exchange(unapplied_->is_retried, true)) table_.count_pages();
  const Status applied = apply(unapplied_->change, unapplied_->segment);
  if (applied || BlockTable::is_gone(applied.error())) unapplied_.reset();
  return applied;
}

Result<catalog::SegmentNumber> Layer::record(const LayerChange& change, const Touch& touch) {
  if (retired_.load()) return fail(Errc::stale, "the image was deleted");
  catalog::WriteTxn txn(catalog_);
  if (touch.kind != Touch::Kind::nothing) RK_TRY(observer_.touch(txn, touch));
  txn.change_layer(id_, change.encode());
  return txn.commit();
}

Status Layer::apply(const LayerChange& change, catalog::SegmentNumber segment) {
  size_ = change.size;
  mark_changed();
  if (change.kind == LayerChange::Kind::range)
    return table_.set_range(change.first, change.end, change.state,
                            [&](const BlockEntry& entry) NO_THREAD_SAFETY_ANALYSIS { drop_entry(entry, segment); });
  Status applied;
  for (std::size_t i = 0; i < change.entries.size(); ++i) {
    const BlockEntry& entry = change.entries[i];
    const Status set = apply_entry(change.first + i, entry, segment);
    if (set) continue;
    if (!BlockTable::is_gone(set.error())) return set;
    // The table of one block is damaged: that does not keep the others from being set, and its slot is on record.
    if (entry.state == BlockState::data) limbo_.add(entry.slot, segment);
    applied = set;
  }
  return applied;
}

// May be called again for an entry it was interrupted at, or had done: the table changes last.
Status Layer::apply_entry(BlockIndex index, const BlockEntry& entry, catalog::SegmentNumber segment) {
  RK_TRY_ASSIGN(const BlockTable::Run run, table_.find(index));
  const BlockEntry before = run.entry;
  if (before == entry) return {};
  if (before.state == BlockState::data) limbo_.add(before.slot, segment);
  if (entry.state == BlockState::data) limbo_.remove(entry.slot);
  if (const auto set = table_.set(index, entry); !set) {
    if (before.state == BlockState::data) limbo_.remove(before.slot);
    return fail(set.error());
  }
  if (before.state == BlockState::data) stored_ -= std::min<std::uint64_t>(stored_, before.stored_length);
  if (entry.state != BlockState::data) return {};
  stored_ += entry.stored_length;
  if (entry.slot & kSpillBit) next_spill_ = std::max(next_spill_, (entry.slot & ~kSpillBit) + 1);
  return {};
}

void Layer::drop_entry(const BlockEntry& entry, catalog::SegmentNumber segment) {
  if (limbo_.add(entry.slot, segment)) stored_ -= std::min<std::uint64_t>(stored_, entry.stored_length);
}

void Layer::mark_changed() {
  if (changed_) return;
  observer_.layer_changed(id_);
  changed_ = true;
}

// --- filling ---------------------------------------------------------------------------------------------------

Result<std::uint64_t> Layer::fill(BlockIndex first, std::uint64_t most) {
  constexpr std::uint64_t kMostLooks = 4096;  // blocks that need nothing are passed quickly, but not for ever
  BlockIndex index = first;
  RK_TRY_ASSIGN(BlockTable::Run run, find(index));
  for (std::uint64_t looks = 0; run.entry.state != BlockState::base && looks < kMostLooks; ++looks) {
    const BlockIndex end = end_block(size());
    if (index >= end) return index - first;
    if (run.entry.state == BlockState::lost) return fail(lost(index));  // it may have been the base's
    index += std::min(run.length, end - index);
    RK_TRY_ASSIGN(run, find(index));
  }
  if (index > first || run.entry.state != BlockState::base) return index - first;

  RK_TRY_ASSIGN(const Below below, below_for(index));
  if (!below.base) return 1;
  RK_TRY_ASSIGN(const std::uint64_t zeros, below.content()->zeros_at(offset_of(index)));
  const std::uint64_t zero_blocks = zeros >> record_.block_shift;
  const std::uint64_t count = std::min(run.length, zero_blocks > 0 ? zero_blocks : most);

  auto held = ranges_.acquire(index, index + count);
  const std::uint64_t content = size();
  const BlockIndex end = std::min(index + count, end_block(content));
  RK_TRY_ASSIGN(run, find(index));
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
    RK_TRY_ASSIGN(change.entries, store(index, plain.span()));
  }
  RK_TRY(commit(std::move(change), true, {}));
  return run_end - index;
}

Status Layer::keep(std::uint64_t offset, ByteView plain) {
  const std::uint64_t end = offset + plain.size();
  BlockIndex index = end_block(offset);
  auto held = ranges_.acquire(index, end_block(end));
  const std::uint64_t content = size();
  const BlockIndex end_index = end >= content ? end_block(content) : block_of(end);
  while (index < end_index) {
    RK_TRY_ASSIGN(const BlockTable::Run run, find(index));
    const BlockIndex run_end = std::min(end_index, index + run.length);
    if (run.entry.state == BlockState::base) {
      const std::uint64_t from = offset_of(index);
      const std::uint64_t to = std::min(std::min(offset_of(run_end), content), end);
      LayerChange change;
      change.first = index;
      RK_TRY_ASSIGN(change.entries, store(index, plain.subspan(from - offset, to - from)));
      RK_TRY(commit(std::move(change), true, {}));
    }
    index = run_end;
  }
  return {};
}

// --- checkpoint and recovery -----------------------------------------------------------------------------------

Result<Layer::Flush> Layer::begin_flush() {
  Lock changing(changing_);
  UniqueLock lock(mutex_);
  RK_TRY(catch_up());
  RK_TRY_ASSIGN(BlockTable::Snapshot snapshot, table_.snapshot());
  changed_ = false;
  LayerTableRecord record;
  record.size = size_;
  record.root = snapshot.root;
  record.stored = stored_;
  record.next_spill = next_spill_;
  record.filled = filled_;
  return Flush{std::move(snapshot.writes), record.encode()};
}

// Pages of a snapshot go to places nobody else uses, through a file that is opened once.
Status Layer::write_flush(const Flush& flush) NO_THREAD_SAFETY_ANALYSIS { return table_.write(flush.pages); }

Result<std::unique_ptr<io::File>> Layer::open_table_file(bool create) {
  const std::string path = layer_path(id_) + ".table";
  auto file = storage_.open(path, io::OpenMode::write);
  if (file || file.error().code != Errc::not_found) return file;
  if (!create) return fail(Errc::corrupt, "the table file " + path + " is missing");
  table_is_new_ = true;
  return storage_.open(path, io::OpenMode::create);
}

Status Layer::sync_table() {
  io::File* file;
  {
    SharedLock lock(mutex_);
    file = const_cast<BlockTable&>(table_).file();
  }
  if (file) RK_TRY(file->sync());
  if (!table_is_new_.load()) return {};
  RK_TRY(storage_.sync_directory(layer_directory(id_)));
  table_is_new_ = false;  // files are made by checkpoints, one at a time
  return {};
}

void Layer::end_flush(bool committed, catalog::SegmentNumber first_segment) {
  std::vector<SlotRun> given_back;
  {
    UniqueLock lock(mutex_);
    if (!committed) {
      table_.failed();
      changed_ = true;  // and stays among the registry's
      return;
    }
    table_.committed();
    given_back = retain_some(first_segment);
    for (const SlotRun& run : given_back) being_punched_ += run.count;
  }
  relieved_.notify_all();
  // Still in limbo, so that nobody takes them before they are punched.
  for (const SlotRun& run : given_back)
    if (const Status punched = files_.punch(run); !punched) log::warn("space not given back: {}", describe(punched.error()));
  UniqueLock lock(mutex_);
  limbo_.remove_older_than(first_segment);
  being_punched_ = 0;
  for (const SlotRun& run : given_back)
    if (run.first & kSpillBit) punched_spill_.add(run);
  // What is in limbo or idle waits for the next checkpoint.
  if (!limbo_.empty() || !idle_.empty()) mark_changed();
}

std::vector<SlotRun> Layer::retain_some(catalog::SegmentNumber first_segment) {
  const std::vector<SlotRun> old = limbo_.older_than(first_segment);
  if (old.empty() && limbo_.empty()) {
    // Nothing was superseded since the last checkpoint: the layer is at rest, and its space goes back.
    for (const Slot slot : std::exchange(idle_, {})) limbo_.add(slot, kNoSegment);
    return limbo_.older_than(first_segment);
  }
  for (auto run = old.rbegin(); may_idle_ && run != old.rend() && idle_.size() < kMostIdle; ++run) {
    for (std::uint64_t n = 0; n < run->count && idle_.size() < kMostIdle; ++n) {
      limbo_.remove(run->first + n);
      idle_.insert(run->first + n);
    }
  }
  return limbo_.older_than(first_segment);
}

Layer::Pressure Layer::pressure() const {
  SharedLock lock(mutex_);
  return {table_.dirty_pages(), limbo_.slots() - being_punched_};
}

Status Layer::mark_lost(const BlockTable::Lost& lost) {
  UniqueLock lock(mutex_);
  bool any = false;
  const Status walked = table_.mark_lost([&](BlockIndex first, BlockIndex end) {
    any = true;
    lost(first, end);
  });
  if (any) mark_changed();
  return walked;
}

Result<bool> Layer::verifies(const LayerChange& change) {
  Scratch block(block_size_);
  for (std::size_t i = 0; i < change.entries.size(); ++i) {
    const BlockEntry& entry = change.entries[i];
    if (entry.state != BlockState::data) continue;
    const ByteSpan sealed = block.span().first(stored_size(entry));
    Status opened = files_.read(entry.slot, sealed);
    if (opened) opened = cipher_->open(change.first + i, entry, sealed, sealed);
    if (opened) continue;
    const Errc code = opened.error().code;
    if (code == Errc::corrupt) return false;
    // Without its key nothing can be said of it. It is kept: the reader who has the key again gets it, or an error.
    if (code != Errc::key_revoked && code != Errc::no_key) return fail(opened.error());
  }
  return true;
}

Result<bool> Layer::replay(const LayerChange& change, catalog::SegmentNumber segment, bool verify, GivesUp gives_up) {
  const Opens opens = [&](const LayerChange& some) -> Result<bool> {
    const Result<bool> verified = verifies(some);
    return verified || !gives_up(verified.error()) ? verified : Result<bool>(false);
  };
  if (verify) {
    RK_TRY_ASSIGN(verify, opens(change).map(std::logical_not<>()));
  }
  if (!verify && !left_out_) {
    UniqueLock lock(mutex_);
    RK_TRY(apply(change, segment));
    return true;
  }
  left_out_ = true;
  return replay_in_part(change, segment, opens);
}

// The size still counts, and what was beyond it then reads zero: also what the last block of the content holds behind
// its end, which is zeros only if what made it so, or replaced it, is not among what was left out. Else the size stays.
Result<bool> Layer::replay_in_part(const LayerChange& change, catalog::SegmentNumber segment, const Opens& opens) {
  const std::uint64_t old_size = size();
  const BlockIndex old_end = end_block(old_size), last = block_of(old_size);
  RK_TRY_ASSIGN(bool may_grow, is_zero_behind(old_size));
  LayerChange one = change;
  if (change.kind == LayerChange::Kind::range) {
    if (!may_grow) one.size = std::min(change.size, old_size);
    UniqueLock lock(mutex_);
    RK_TRY(apply(one, segment));
    return one.size == change.size;
  }
  bool is_all = true;
  for (std::size_t i = 0; i < change.entries.size(); ++i) {
    one.first = change.first + i;
    one.entries = {change.entries[i]};
    RK_TRY_ASSIGN(const bool is_whole, opens(one));
    may_grow = may_grow || (is_whole && one.first == last);
    if (one.first > last && !may_grow) return false;  // there is nothing behind the end
    one.size = may_grow ? change.size : std::min(change.size, old_size);
    if (!is_whole) {
      one.entries.clear();
      if (one.first >= old_end) one.entries.emplace_back();
    }
    is_all = is_all && is_whole;
    UniqueLock lock(mutex_);
    RK_TRY(apply(one, segment));
  }
  return is_all;
}

Result<bool> Layer::is_zero_behind(std::uint64_t size) {
  const std::uint64_t valid = size % block_size_;
  if (valid == 0) return true;
  RK_TRY_ASSIGN(const BlockTable::Run run, find(block_of(size)));
  return run.entry.state == BlockState::hole || (run.entry.state == BlockState::data && run.entry.stored_length <= valid);
}

}  // namespace rekeyfs::blocks
