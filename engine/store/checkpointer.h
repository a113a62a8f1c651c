// Checkpointer: brings the catalog and the block tables up to date with the journal, every few seconds or when
// enough has come together, and trims the journal.
//
// The order is what crash safety rests on: changed pages and data durable first, then LMDB's commit (which names
// the new tables and the journal segment to recover from), and only then anything is removed or reused.
#pragma once

#include <deque>

#include "engine/base/background.h"
#include "engine/blocks/layer_registry.h"
#include "engine/io/reserved_storage.h"
#include "engine/store/health.h"

namespace rekeyfs::store {

class Checkpointer {
 public:
  // All outlive it.
  Checkpointer(io::ReservedStorage& storage, catalog::Catalog& catalog, blocks::LayerRegistry& layers, Health& health)
      : storage_(storage), catalog_(catalog), layers_(layers), health_(health) {}

  Status start();
  void stop() { background_.stop(); }  // fine if it never started
  // One checkpoint now, in the caller's thread; on a full disk with what is reserved for it.
  Status run();
  // All changes so far are durable when it returns: by a checkpoint, or as they are if the disk is too full for one.
  Status sync_all();
  // Makes a replica's source durable before the journal that names it is: see sync_journal().
  void must_precede_sync(std::shared_ptr<blocks::Layer> base);
  // The journal, and what it depends on, is durable when it returns.
  Status sync_journal(const std::vector<std::shared_ptr<blocks::Layer>>& synced);

 private:
  Background::Duration step();
  bool is_due() const;
  std::uint64_t bytes_to_write() const;
  Status run_once() REQUIRES(running_);
  // Takes layers that were made since the catalog was frozen over to `made_since`.
  Status flush(blocks::LayerRegistry::Changed& changed, blocks::LayerRegistry::Changed& made_since,
               std::vector<std::shared_ptr<blocks::Layer>>& flushed,
               std::vector<std::pair<std::string, std::string>>& records);
  std::uint64_t bases_noted();  // by must_precede_sync(), since the start
  void bases_are_durable(std::uint64_t noted);
  Result<std::vector<LayerId>> list_garbage() const;
  Status remove_garbage(const std::vector<LayerId>& garbage);

  io::ReservedStorage& storage_;
  catalog::Catalog& catalog_;
  blocks::LayerRegistry& layers_;
  Health& health_;

  Mutex running_;  // one checkpoint at a time
  Mutex mutex_;
  std::deque<std::shared_ptr<blocks::Layer>> before_sync_ GUARDED_BY(mutex_);
  std::uint64_t first_before_sync_ GUARDED_BY(mutex_) = 0;  // how many were noted before the first of them

  // The background thread's own.
  Background::Clock::time_point last_{};
  bool failed_ = false;
  Background background_{"checkpointer"};
};

}  // namespace rekeyfs::store
