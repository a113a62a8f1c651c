// Checkpointer: writes the changes in the journal to the catalog and the block tables, every few seconds or when enough
// changes have accumulated, and trims the journal.
//
// Crash safety rests on this order: first changed pages and data become durable; then LMDB commits the record of the
// new tables and of the journal segment to recover from; only then is anything removed or reused.
#pragma once

#include <deque>

#include "engine/base/background.h"
#include "engine/blocks/layer_registry.h"
#include "engine/io/reserved_storage.h"
#include "engine/store/health.h"

namespace rekeyfs::store {

class Checkpointer {
 public:
  // All arguments must outlive it.
  Checkpointer(io::ReservedStorage& storage, catalog::Catalog& catalog, blocks::LayerRegistry& layers, Health& health)
      : storage_(storage), catalog_(catalog), layers_(layers), health_(health) {}

  Status start();
  void stop() { background_.stop(); }  // no-op if it was never started
  // Makes one checkpoint in the caller's thread. On a full disk it uses the reserve.
  Status run();
  // When it returns, all changes so far are durable: through a checkpoint or, if the disk is too full for one, through
  // the journal and the data files.
  Status sync_all();
  // The base of a replica must become durable before a journal that names the replica: see sync_journal().
  void must_precede_sync(std::shared_ptr<blocks::Layer> base);
  // Makes the journal durable, and before it everything that its records depend on.
  Status sync_journal(const std::vector<std::shared_ptr<blocks::Layer>>& synced);

 private:
  Background::Duration step();
  bool is_due() const;
  std::uint64_t bytes_to_write() const;
  Status run_once() REQUIRES(running_);
  // Moves layers that were created after the catalog was frozen to `made_since`.
  Status flush(blocks::LayerRegistry::Changed& changed, blocks::LayerRegistry::Changed& made_since,
               std::vector<std::shared_ptr<blocks::Layer>>& flushed,
               std::vector<std::pair<std::string, std::string>>& records);
  std::uint64_t bases_noted();  // number of must_precede_sync() calls since the start
  void bases_are_durable(std::uint64_t noted);
  Result<std::vector<LayerId>> list_garbage() const;
  Status remove_garbage(const std::vector<LayerId>& garbage);

  io::ReservedStorage& storage_;
  catalog::Catalog& catalog_;
  blocks::LayerRegistry& layers_;
  Health& health_;

  Mutex running_;  // serializes checkpoints
  Mutex mutex_;
  std::deque<std::shared_ptr<blocks::Layer>> before_sync_ GUARDED_BY(mutex_);
  std::uint64_t first_before_sync_ GUARDED_BY(mutex_) = 0;  // number of bases noted before the front of before_sync_

  // Used by the background thread only.
  Background::Clock::time_point last_{};
  bool failed_ = false;
  Background background_{"checkpointer"};
};

}  // namespace rekeyfs::store
