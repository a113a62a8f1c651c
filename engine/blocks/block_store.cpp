#include "engine/blocks/block_store.h"

#include <algorithm>
#include <utility>

#include "engine/base/log.h"
#include "engine/blocks/scratch.h"

namespace rekeyfs::blocks {
namespace {

// A block may be replaced while it is read. More retries than this are not a coincidence but an error.
constexpr int kMaxRetries = 16;

bool is_zero(ByteView bytes) {
  return bytes.empty() || (bytes[0] == std::byte{0} && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

}  // namespace

BlockStore::BlockStore(const Parts& parts, LayerId id, BlockGrid grid, const LayerTableRecord& table,
                       std::unique_ptr<LayerCipher> cipher)
    : id_(id),
      grid_(grid),
      storage_(parts.storage),
      catalog_(parts.catalog),
      observer_(parts.observer),
      cipher_(std::move(cipher)),
      files_(parts.storage, id, grid.block_size()),
      table_file_(parts.storage, id),
      core_(id, parts.table_mac, [this](bool create) { return table_file_.open(create); }, table, parts.budget) {}

std::uint64_t BlockStore::size() const {
  SharedLock lock(mutex_);
  return core_.size();
}

std::uint64_t BlockStore::stored() const {
  SharedLock lock(mutex_);
  return core_.stored();
}

BlockIndex BlockStore::filled() const {
  SharedLock lock(mutex_);
  return core_.filled();
}

void BlockStore::set_filled(BlockIndex next) {
  UniqueLock lock(mutex_);
  core_.set_filled(next);
  mark_changed();
}

bool BlockStore::is_all(TableRoot::State state) const {
  SharedLock lock(mutex_);
  return core_.is_all(state);
}

// --- reading ---------------------------------------------------------------------------------------------------

Result<BlockTable::Run> BlockStore::find(BlockIndex index) {
  {
    SharedLock lock(mutex_);
    RK_TRY_ASSIGN(const auto run, core_.find_cached(index));
    if (run) return *run;
  }
  UniqueLock lock(mutex_);
  return core_.find(index);
}

Result<std::vector<BlockTable::Run>> BlockStore::runs_of(BlockIndex first, BlockIndex end) {
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
      RK_TRY_ASSIGN(const auto run, core_.find_cached(index));
      if (!run) break;
      take(*run);
    }
  }
  if (index == end) return runs;
  UniqueLock lock(mutex_);
  while (index < end) {
    RK_TRY_ASSIGN(const BlockTable::Run run, core_.find(index));
    take(run);
  }
  return runs;
}

Result<bool> BlockStore::is_zero_behind(std::uint64_t size) {
  const std::uint64_t valid = size % grid_.block_size();
  if (valid == 0) return true;
  RK_TRY_ASSIGN(const BlockTable::Run run, find(grid_.block_of(size)));
  return run.entry.state == BlockState::hole || (run.entry.state == BlockState::data && run.entry.stored_length <= valid);
}

Result<std::size_t> BlockStore::read(BlockIndex first, const std::vector<BlockEntry>& entries, std::uint64_t offset, ByteSpan out) {
  const std::size_t block_size = grid_.block_size();
  std::size_t done = 0;
  const auto read_part = [&](std::size_t i, std::size_t size) -> Result<bool> {
    return read_one(first + i, entries[i], offset + done - grid_.offset_of(first + i), out.subspan(done, size));
  };
  for (std::size_t i = 0; done < out.size();) {
    const std::uint64_t start = grid_.offset_of(first + i);
    const std::size_t left = out.size() - done;
    const std::size_t whole = offset + done == start ? left / block_size : 0;
    if (whole == 0) {
      const std::size_t part = std::min<std::uint64_t>(left, start + block_size - (offset + done));
      RK_TRY_ASSIGN(const bool is_data, read_part(i, part));
      if (!is_data) return done;
      done += part;
      ++i;
      continue;
    }
    RK_TRY(files_.read(entries[i].slot, out.subspan(done, whole * block_size)));
    for (std::size_t n = 0; n < whole; ++n, ++i, done += block_size) {
      const ByteSpan block = out.subspan(done, block_size);
      const ByteSpan sealed = block.first(stored_size(entries[i]));
      if (cipher_->open(first + i, entries[i], sealed, sealed)) {
        fill_zero(block.subspan(sealed.size()));
        continue;
      }
      RK_TRY_ASSIGN(const bool is_data, read_part(i, block_size));
      if (!is_data) return done;
    }
  }
  return done;
}

// Reads a part of one block; false if the block has no data any more. If the slot was reassigned since the entry was
// looked up, looks it up again.
Result<bool> BlockStore::read_one(BlockIndex index, BlockEntry entry, std::uint64_t offset, ByteSpan out) {
  Scratch scratch(grid_.block_size());
  for (int attempt = 0; attempt < kMaxRetries; ++attempt) {
    const ByteSpan sealed = scratch.span().first(stored_size(entry));
    RK_TRY(files_.read(entry.slot, sealed));
    const Status opened = cipher_->open(index, entry, sealed, sealed);
    if (opened) {
      fill_zero(scratch.span().subspan(sealed.size()));
      std::memcpy(out.data(), &scratch.span()[offset], out.size());
      return true;
    }
    if (opened.error().code != Errc::corrupt) return fail(opened.error());
    RK_TRY_ASSIGN(const BlockTable::Run now, find(index));
    if (now.entry == entry) break;
    if (now.entry.state != BlockState::data) return false;
    entry = now.entry;
  }
  return fail(Errc::corrupt, "block " + std::to_string(index) + " of layer " + std::to_string(id_.value()) +
                                 " does not verify: it is damaged or was replaced");
}

Status BlockStore::verify(BlockIndex index, const BlockEntry& entry) {
  Scratch block(grid_.block_size());
  const ByteSpan sealed = block.span().first(stored_size(entry));
  RK_TRY(files_.read(entry.slot, sealed));
  return cipher_->open(index, entry, sealed, sealed);
}

// --- changing --------------------------------------------------------------------------------------------------

Result<std::vector<BlockEntry>> BlockStore::store(BlockIndex first, ByteView plain) {
  const std::size_t block_size = grid_.block_size();
  std::vector<BlockEntry> entries(grid_.end_block(plain.size()));
  auto block_at = [&](auto bytes, std::size_t i) {
    return bytes.subspan(i * block_size, std::min<std::size_t>(block_size, bytes.size() - i * block_size));
  };
  for (std::size_t i = 0; i < entries.size(); ++i)
    if (!is_zero(block_at(plain, i))) entries[i].state = BlockState::data;  // otherwise it stays a hole
  Scratch sealed(plain.size());  // allocated before slots are chosen, so that a failure loses none
  RK_TRY(choose_slots(first, entries));

  Status status;
  for (std::size_t i = 0; i < entries.size() && status; ++i)
    if (entries[i].state == BlockState::data)
      status = cipher_->seal(first + i, block_at(plain, i), block_at(sealed.span(), i), entries[i]);
  if (status) status = write_slots(entries, sealed.span());
  if (status) return entries;
  abandon(entries);
  return fail(status.error());
}

// Writes adjacent slots with one call.
Status BlockStore::write_slots(const std::vector<BlockEntry>& entries, ByteView sealed) {
  const std::size_t block_size = grid_.block_size();
  auto is_data = [&](std::size_t i) { return i < entries.size() && entries[i].state == BlockState::data; };
  for (std::size_t i = 0; i < entries.size();) {
    const std::size_t from = i++;
    if (!is_data(from)) continue;
    while (is_data(i) && entries[i].slot == entries[i - 1].slot + 1) ++i;
    const std::size_t end = std::min(i * block_size, sealed.size());
    RK_TRY(files_.write(entries[from].slot, sealed.subspan(from * block_size, end - from * block_size)));
  }
  return {};
}

Status BlockStore::choose_slots(BlockIndex first, std::vector<BlockEntry>& entries) {
  UniqueLock lock(mutex_);
  const Status chosen = core_.choose_slots(first, entries);
  if (!chosen) mark_changed();  // because slots were abandoned
  return chosen;
}

void BlockStore::abandon(const std::vector<BlockEntry>& entries) {
  UniqueLock lock(mutex_);
  core_.abandon(entries);
  mark_changed();
}

Status BlockStore::commit(LayerChange change, bool may_grow, const Touch& touch) {
  Lock changing(changing_);
  const Status prepared = prepare_change();
  if (may_grow) change.size = std::max(change.size, size());
  const auto segment = prepared ? record(change, touch) : fail(prepared.error());
  if (!segment) {
    abandon(change.entries);
    return fail(segment.error());
  }
  UniqueLock lock(mutex_);
  return core_.apply(std::move(change), *segment);
}

// Called before the record is appended: the checkpoint that ends its segment must know that this layer has changed, or
// it would trim the record without having written it to the table.
Status BlockStore::prepare_change() {
  UniqueLock lock(mutex_);
  RK_TRY(core_.catch_up());
  core_.slots().may_idle();
  mark_changed();
  return {};
}

Result<catalog::SegmentNumber> BlockStore::record(const LayerChange& change, const Touch& touch) {
  if (retired_.load()) return fail(Errc::stale, "the image was deleted");
  catalog::WriteTxn txn(catalog_);
  if (touch.kind != Touch::Kind::nothing) RK_TRY(observer_.touch(txn, touch));
  txn.change_layer(id_, change.encode());
  return txn.commit();
}

// --- promised space --------------------------------------------------------------------------------------------

Status BlockStore::each_without_data(BlockIndex first, BlockIndex end, const VisitHomes& visit) {
  for (BlockIndex index = first; index < end;) {
    RK_TRY_ASSIGN(const BlockTable::Run run, find(index));
    const std::uint64_t length = std::min(run.length, end - index);
    if (run.entry.state != BlockState::data) RK_TRY(visit({index, length}));
    index += length;
  }
  return {};
}

Result<std::uint64_t> BlockStore::bytes_without_data(BlockIndex first, BlockIndex end) {
  std::uint64_t bytes = 0;
  RK_TRY(each_without_data(first, end, [&](const SlotRun& homes) -> Status {
    bytes += homes.count * grid_.block_size();
    return {};
  }));
  return bytes;
}

Result<std::uint64_t> BlockStore::bytes_to_promise(BlockIndex first, BlockIndex end) {
  std::uint64_t bytes = 0;
  RK_TRY(each_without_data(first, end, [&](const SlotRun& homes) -> Status {
    const std::uint64_t all = homes.count * grid_.block_size();
    RK_TRY_ASSIGN(const std::uint64_t held, files_.reserved(homes));
    bytes += all - std::min(all, held);
    return {};
  }));
  return bytes;
}

Status BlockStore::promise(BlockIndex first, BlockIndex end) {
  Lock space(space_);
  // Checked first, because reserving only a part would leave the disk full until it is released.
  RK_TRY_ASSIGN(const std::uint64_t wanted, bytes_to_promise(first, end));
  if (wanted == 0) return {};
  RK_TRY_ASSIGN(const io::Space room, storage_.space());
  if (wanted > room.available)
    return fail(Errc::no_space, "No space left on device: " + std::to_string(wanted) + " bytes are asked for, and " +
                                    std::to_string(room.available) + " are free");
  promised_end_ = std::max(promised_end_, end);
  Status taken = each_without_data(first, end, [&](const SlotRun& homes) -> Status {
    {
      UniqueLock lock(mutex_);
      core_.slots().keep(homes);
      mark_changed();
    }
    return files_.reserve(homes);
  });
  // The blocks' entries need space, too: each changed table page is written to a new position.
  if (taken) taken = table_file_.reserve(wanted / grid_.block_size() * kEntrySize + 2 * kPageSize);
  if (!taken) static_cast<void>(release_homes(first, end));
  return taken;
}

Status BlockStore::release(BlockIndex first, BlockIndex end) {
  Lock space(space_);
  return release_homes(first, end);
}

Status BlockStore::release_tail(BlockIndex first, BlockIndex end) {
  Lock space(space_);
  return release_homes(first, std::max(end, std::exchange(promised_end_, std::min(promised_end_, first))));
}

Status BlockStore::release_homes(BlockIndex first, BlockIndex end) {
  return each_without_data(first, end, [&](const SlotRun& homes) -> Status {
    RK_TRY_ASSIGN(const std::uint64_t held, files_.reserved(homes));
    if (held == 0) return {};
    std::vector<SlotRun> unused;
    {
      UniqueLock lock(mutex_);
      unused = core_.slots().unkeep(homes);
      mark_changed();
    }
    for (const SlotRun& run : unused) RK_TRY(files_.punch(run));
    return {};
  });
}

void BlockStore::mark_changed() {
  if (changed_) return;
  observer_.layer_changed(id_);
  changed_ = true;
}

// --- checkpoint and recovery -----------------------------------------------------------------------------------

BlockStore::Pressure BlockStore::pressure() const {
  SharedLock lock(mutex_);
  return {core_.dirty_pages(), core_.slots_in_limbo()};
}

Result<BlockCore::Snapshot> BlockStore::begin_flush() {
  Lock changing(changing_);  // so that the snapshot contains every recorded change
  UniqueLock lock(mutex_);
  RK_TRY_ASSIGN(BlockCore::Snapshot snapshot, core_.snapshot());
  changed_ = false;
  return snapshot;
}

// Needs no lock: the positions are used by no other thread, and the file is opened only once.
Status BlockStore::write_pages(const std::vector<BlockTable::PageWrite>& pages) NO_THREAD_SAFETY_ANALYSIS { return core_.write_pages(pages); }

Status BlockStore::sync_table() {
  io::File* file;
  {
    UniqueLock lock(mutex_);
    file = core_.table_file();
  }
  if (file) RK_TRY(file->sync());
  return table_file_.sync_name();
}

void BlockStore::flush_failed() {
  UniqueLock lock(mutex_);
  core_.settle(false);
  changed_ = true;  // the layer stays in the registry's list of changed layers
}

void BlockStore::flush_committed() {
  UniqueLock lock(mutex_);
  core_.settle(true);
}

void BlockStore::give_back(catalog::SegmentNumber first_segment, const std::function<void()>& sorted) {
  Lock space(space_);
  std::vector<SlotRun> runs;
  {
    UniqueLock lock(mutex_);
    runs = core_.slots().begin_punch(first_segment);
  }
  sorted();
  for (const SlotRun& run : runs)
    if (const Status punched = files_.punch(run); !punched) log::warn("cannot free space in the store: {}", describe(punched.error()));
  UniqueLock lock(mutex_);
  core_.slots().end_punch();
  if (core_.slots().waits_for_flush()) mark_changed();
}

Status BlockStore::replay(const LayerChange& change, catalog::SegmentNumber segment) {
  UniqueLock lock(mutex_);
  mark_changed();
  return core_.apply(change, segment);
}

Status BlockStore::mark_lost(const BlockTable::Lost& lost) {
  UniqueLock lock(mutex_);
  bool any = false;
  const Status walked = core_.mark_lost([&](BlockIndex first, BlockIndex end) {
    any = true;
    lost(first, end);
  });
  if (any) mark_changed();
  return walked;
}

}  // namespace rekeyfs::blocks
