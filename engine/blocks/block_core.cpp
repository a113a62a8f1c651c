#include "engine/blocks/block_core.h"

#include <algorithm>
#include <utility>

namespace rekeyfs::blocks {

BlockCore::BlockCore(LayerId layer, const crypto::Mac& mac, BlockTable::OpenFile open_file, const LayerTableRecord& record,
                     PageBudget& budget)
    : table_(layer, mac, std::move(open_file), record.root, budget),
      slots_(record.next_spill),
      size_(record.size),
      stored_(record.stored),
      filled_(record.filled) {}

Status BlockCore::choose_slots(BlockIndex first, std::vector<BlockEntry>& entries) {
  RK_TRY(catch_up());  // otherwise the slots of a recorded change would look free
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].state != BlockState::data) continue;
    const auto current = table_.find(first + i);
    const auto slot = current ? slots_.choose(first + i, current->entry) : fail(current.error());
    if (!slot) {
      entries.resize(i);
      abandon(entries);
      return fail(slot.error());
    }
    entries[i].slot = *slot;
  }
  return {};
}

void BlockCore::abandon(const std::vector<BlockEntry>& entries) {
  for (const BlockEntry& entry : entries)
    if (entry.state == BlockState::data) slots_.abandon(entry.slot);
}

Status BlockCore::apply(LayerChange change, Segment segment) {
  unapplied_.emplace(Recorded{std::move(change), segment});
  return catch_up();
}

Status BlockCore::catch_up() {
  if (!unapplied_) return {};
  if (std::exchange(unapplied_->is_retried, true)) table_.count_pages();
  const Status applied = take_in(unapplied_->change, unapplied_->segment);
  if (applied || BlockTable::is_gone(applied.error())) unapplied_.reset();
  return applied;
}

Status BlockCore::take_in(const LayerChange& change, Segment segment) {
  size_ = change.size;
  if (change.kind == LayerChange::Kind::range)
    return table_.set_range(change.first, change.end, change.state, [&](const BlockEntry& gone) {
      if (slots_.supersede(gone.slot, segment)) stored_ -= std::min<std::uint64_t>(stored_, gone.stored_length);
    });
  Status taken;
  for (std::size_t i = 0; i < change.entries.size(); ++i) {
    const BlockEntry& entry = change.entries[i];
    const Status set = take_in_entry(change.first + i, entry, segment);
    if (set) continue;
    if (!BlockTable::is_gone(set.error())) return set;
    // The table page of this block is damaged. The other entries can still be set; this one's slot stays in the
    // journal.
    if (entry.state == BlockState::data) slots_.supersede(entry.slot, segment);
    taken = set;
  }
  return taken;
}

// May be called again for an entry that was applied in part or in full, because the table changes last.
Status BlockCore::take_in_entry(BlockIndex index, const BlockEntry& entry, Segment segment) {
  RK_TRY_ASSIGN(const BlockTable::Run run, table_.find(index));
  const BlockEntry before = run.entry;
  if (before == entry) return {};
  if (before.state == BlockState::data) slots_.supersede(before.slot, segment);
  if (entry.state == BlockState::data) slots_.use(entry.slot);
  if (const auto set = table_.set(index, entry); !set) {
    if (before.state == BlockState::data) slots_.use(before.slot);
    return fail(set.error());
  }
  if (before.state == BlockState::data) stored_ -= std::min<std::uint64_t>(stored_, before.stored_length);
  if (entry.state == BlockState::data) stored_ += entry.stored_length;
  return {};
}

Result<BlockCore::Snapshot> BlockCore::snapshot() {
  RK_TRY(catch_up());
  RK_TRY_ASSIGN(BlockTable::Snapshot table, table_.snapshot());
  LayerTableRecord record;
  record.size = size_;
  record.root = table.root;
  record.stored = stored_;
  record.next_spill = slots_.next_spill();
  record.filled = filled_;
  return Snapshot{std::move(table.writes), record};
}

}  // namespace rekeyfs::blocks
