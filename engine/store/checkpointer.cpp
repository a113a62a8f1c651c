#include "engine/store/checkpointer.h"

#include <algorithm>
#include <chrono>

#include "engine/base/exceptions.h"

namespace rekeyfs::store {
namespace {

using namespace std::chrono_literals;
constexpr auto kInterval = 3s;   // unsynced changes are durable within 5 s
constexpr Background::Duration kLook = 100ms;  // how often the pressure is checked
constexpr std::uint64_t kJournalBytes = 32u << 20;
constexpr std::size_t kPages = 2048;    // changed pages of block tables: half the budget
constexpr std::uint64_t kLimbo = 4096;  // slots in limbo, 64 MiB of 16 KiB blocks
constexpr std::size_t kGarbageInTxn = 4096;
constexpr std::size_t kFewLayers = 8;   // up to this many, one sync per file is cheaper than syncing the file system

}  // namespace

Status Checkpointer::start() {
  last_ = Background::Clock::now();
  return background_.start([this] { return step(); });
}

Background::Duration Checkpointer::step() {
  const auto now = Background::Clock::now();
  const bool early = !failed_ && is_due();  // after a failure, waits for the interval instead of retrying every 100 ms
  if (!early && (now - last_ < kInterval || (!catalog_.has_changes() && !layers_.has_changed()))) return kLook;
  last_ = now;
  failed_ = true;  // stays set unless the checkpoint succeeds
  const Status status = run();
  failed_ = !status;
  if (failed_) log::error("checkpoint: {}", describe(status.error()));
  return kLook;
}

bool Checkpointer::is_due() const {
  if (bytes_to_write() > storage_.room_for_checkpoint()) return true;
  if (catalog_.journal_bytes() > kJournalBytes) return true;
  const blocks::BlockStore::Pressure pressure = layers_.pressure();
  return pressure.dirty_pages > kPages || pressure.limbo_slots > kLimbo;
}

// Upper bound of what a checkpoint writes now: each changed record may be on its own LMDB page, which LMDB copies.
// Values longer than a page are covered by the size of the journal.
std::uint64_t Checkpointer::bytes_to_write() const {
  return (catalog_.changes() + layers_.pressure().dirty_pages) * blocks::kPageSize + catalog_.journal_bytes();
}

Status Checkpointer::run() {
  Lock once(running_);
  RK_TRY(storage_.with_reserve([&]() NO_THREAD_SAFETY_ANALYSIS { return run_once(); }));
  storage_.refill();
  return {};
}

Status Checkpointer::run_once() {
  RK_TRY(health_.is_sound());
  const std::uint64_t noted = bases_noted();  // their data is in a changed layer or already durable
  RK_TRY_ASSIGN(const std::vector<LayerId> garbage, list_garbage());
  auto frozen = catalog_.freeze();
  if (!frozen) return health_.after_sync(fail(frozen.error()));
  const catalog::SegmentNumber first = *frozen;
  blocks::LayerRegistry::Changed changed = layers_.take_changed(), made_since;
  std::vector<std::shared_ptr<blocks::Layer>> flushed;
  const Status status = caught([&]() -> Status {
    std::vector<std::pair<std::string, std::string>> records;
    RK_TRY(flush(changed, made_since, flushed, records));
    return health_.after_sync(catalog_.commit_frozen(first, records));
  });
  if (!status) {
    catalog_.thaw();
    // Some layers may not have been reached: the next checkpoint must flush all of them.
    layers_.put_back(changed);
  }
  layers_.put_back(made_since);
  for (const auto& layer : flushed) {
    const Status ended = caught([&]() -> Status {
      layer->flush().end(status.has_value(), first);
      return {};
    });
    if (!ended) log::warn("cannot free space in the store: {}", ended.error().message);
  }
  RK_TRY(status);
  bases_are_durable(noted);
  return remove_garbage(garbage);
}

Status Checkpointer::sync_all() {
  if (!catalog_.is_started()) return health_.is_sound();  // nothing was changed
  Status status = run();
  if (status || status.error().code != Errc::no_space) return status;
  // The journal contains everything that the tables and the catalog lack.
  return health_.after_sync(storage_.sync_all());
}

// When it returns, all data of the changed layers that the records will name is durable.
Status Checkpointer::flush(blocks::LayerRegistry::Changed& changed, blocks::LayerRegistry::Changed& made_since,
                           std::vector<std::shared_ptr<blocks::Layer>>& flushed,
                           std::vector<std::pair<std::string, std::string>>& records) {
  for (auto next = changed.begin(); next != changed.end();) {
    const auto current = next++;
    const auto& [id, layer] = *current;
    const std::string layer_key = catalog::make_key(catalog::Table::layer, id.value());
    RK_TRY_ASSIGN(const auto exists, catalog_.get(layer_key));
    if (!exists) continue;  // the layer was deleted meanwhile
    RK_TRY_ASSIGN(const bool is_frozen, catalog_.has_frozen(layer_key));
    // Its changes are all in the segment that stays; its table must not become durable before its record.
    if (!is_frozen) {
      made_since.insert(changed.extract(current));
      continue;
    }
    // A damaged table alone does not make this fail. If anything does, the journal must not be trimmed without this
    // layer.
    flushed.push_back(layer);
    RK_TRY_ASSIGN(blocks::LayerFlush::Work work, layer->flush().begin());
    RK_TRY(layer->flush().write(work));
    records.emplace_back(catalog::make_key(catalog::Table::layer_table, id.value()), std::move(work.table_record));
  }
  if (flushed.size() > kFewLayers) return health_.after_sync(storage_.sync_all());
  for (const auto& layer : flushed) {
    RK_TRY(health_.after_sync(layer->blocks().sync()));
    RK_TRY(health_.after_sync(layer->flush().sync_table()));
  }
  return {};
}

Result<std::vector<LayerId>> Checkpointer::list_garbage() const {
  std::vector<LayerId> garbage;
  RK_TRY(catalog_.scan(catalog::make_key(catalog::Table::garbage), "", [&](std::string_view key, std::string_view) {
    garbage.push_back(LayerId{Reader(key.substr(1)).get_be64()});
    return true;
  }));
  return garbage;
}

// The deletion of these layers is durable, so nothing needs their files any more. If a path is not a regular file, the
// garbage record stays; that is not an error.
Status Checkpointer::remove_garbage(const std::vector<LayerId>& garbage) {
  std::vector<LayerId> removed;
  for (const auto& [layer, status] : blocks::SlotFiles::remove_all(storage_, garbage)) {
    if (status) removed.push_back(layer);
    else log::warn("cannot remove the files of deleted layer {}: {}; the next checkpoint tries again", layer.value(), describe(status.error()));
  }
  for (std::size_t next = 0; next < removed.size();) {
    catalog::WriteTxn txn(catalog_);
    for (const std::size_t end = std::min(removed.size(), next + kGarbageInTxn); next < end; ++next)
      txn.erase(catalog::make_key(catalog::Table::garbage, removed[next].value()));
    RK_TRY(txn.commit());
  }
  return {};
}

void Checkpointer::must_precede_sync(std::shared_ptr<blocks::Layer> base) {
  Lock lock(mutex_);
  before_sync_.push_back(std::move(base));
}

std::uint64_t Checkpointer::bases_noted() {
  Lock lock(mutex_);
  return first_before_sync_ + before_sync_.size();
}

// Bases noted later stay, because they may have been written since.
void Checkpointer::bases_are_durable(std::uint64_t noted) {
  Lock lock(mutex_);
  for (; first_before_sync_ < noted; ++first_before_sync_) before_sync_.pop_front();
}

Status Checkpointer::sync_journal(const std::vector<std::shared_ptr<blocks::Layer>>& synced) {
  RK_TRY(health_.is_sound());
  if (!catalog_.is_started()) return {};  // nothing was changed
  // Read first: the base of each record before this position has been noted already.
  const catalog::Journal::Position covered = catalog_.journal_end();
  std::vector<std::shared_ptr<blocks::Layer>> layers = synced;
  std::uint64_t noted = 0;
  {
    // They stay noted until they are durable: a concurrent sync, or the next one after a failure, needs them, too.
    Lock lock(mutex_);
    layers.insert(layers.end(), before_sync_.begin(), before_sync_.end());
    noted = first_before_sync_ + before_sync_.size();
  }
  std::vector<LayerId> ids;
  for (auto layer : layers) {
    for (; layer; layer = layer->base()) {
      if (!layer->blocks().needs_sync()) continue;
      RK_TRY(health_.after_sync(layer->blocks().sync()));
      ids.push_back(layer->id());
    }
  }
  bases_are_durable(noted);
  RK_TRY(catalog_.append_synced(ids, covered));
  RK_TRY(health_.after_sync(catalog_.sync_journal()));
  return health_.is_sound();  // the kernel reports a failure to only one of two concurrent syncs of a file
}

}  // namespace rekeyfs::store
