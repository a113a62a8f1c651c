// Catalog: all records of the store, by key. LMDB holds the state of the last checkpoint, a table in memory holds the
// changes since then, and the journal preserves these changes if the process ends.
//
// Any thread may read (get, scan) at any time. Writes are transactions (WriteTxn): one at a time, atomic in the journal
// and in memory. Values are opaque here; the folders that use them define their layouts.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>

#include "engine/base/mutex.h"
#include "engine/catalog/journal.h"
#include "engine/catalog/lmdb.h"
#include "engine/catalog/record_seal.h"
#include "engine/catalog/tables.h"

namespace rekeyfs::catalog {

// One decoded operation of a journal record.
struct Op {
  enum class Kind : std::uint8_t {  // numbers on disk
    put = 1,
    erase = 2,
    layer = 3,  // a change of a layer's blocks; blocks/ defines `value`
    synced = 4,  // all data of the layer named by records before `covered` is durable
  };
  Kind kind = Kind::put;
  std::string key;  // for put, erase
  LayerId layer;    // for layer, synced; 0 if a sync found no data to make durable
  std::string value;
  Journal::Position covered = {};  // for synced
};
Result<std::vector<Op>> decode_ops(std::string_view payload);

class Catalog {
 public:
  // Creates a catalog with `records` in the empty `directory`, and its first journal segment.
  static Status create(io::Storage& storage, const std::string& directory, const crypto::Key& root, const Uuid& store,
                       const std::vector<std::pair<std::string, std::string>>& records);
  // Verifies the catalog, opens it for reading and reads the journal's history, without changing any file. Recovery and
  // start() may follow. Arguments passed by reference must outlive the catalog.
  static Result<std::unique_ptr<Catalog>> open(io::Storage& storage, const std::string& directory,
                                               const crypto::Key& root, const Uuid& store);

  // Moves out the journal's records since the last checkpoint. Recovery passes their catalog operations to
  // recover_op().
  Journal::History take_history();
  void recover_op(const Op& op);
  // Reopens LMDB for writing. start() does this, too; call it only to rename the database file before start().
  Status make_writable();
  // Starts a new epoch and a new journal. Nothing may be encrypted under the epoch before the next checkpoint has
  // committed it.
  Status start(SegmentNumber first_segment);
  // Reverts start(): transactions fail with Errc::read_only again. No other thread may use the catalog yet.
  void stop() { journal_.reset(); }
  bool is_started() const { return journal_ != nullptr; }

  Result<std::optional<std::string>> get(std::string_view key) const;
  // Visits the pairs whose key starts with `prefix` and is at or after `from`, in order, until `visit` returns false.
  // Reads some hundred records at a time and holds no lock in between: writers do not wait for a scan, and `visit` may
  // use the catalog. A scan is therefore not a snapshot. It visits each unchanged record exactly once. A record that is
  // changed meanwhile may appear as before or after the change, and a concurrent transaction may be visible in part.
  // During a WriteTxn of the same thread nothing changes; the scan does not see that transaction's own changes.
  using Visit = std::function<bool(std::string_view key, std::string_view value)>;
  Status scan(std::string_view prefix, std::string_view from, const Visit& visit) const;

  LayerId new_layer() { return LayerId{next_layer_.fetch_add(1)}; }  // a number that was never used before
  const Epochs& epochs() const { return epochs_; }
  const SuperRecord& checkpointed() const { return super_; }  // not during a checkpoint
  std::uint64_t nodes() const { return nodes_.load(); }

  // These functions and checkpoints need a started catalog.
  Status sync_journal() { return journal_->sync(); }
  Journal::Position journal_end() const { return journal_->end(); }
  Result<SegmentNumber> append_synced(const std::vector<LayerId>& layers, const Journal::Position& covered);
  std::uint64_t journal_bytes() const { return journal_->segment_bytes(); }
  bool has_changes() const { return changes() > 0; }
  std::size_t changes() const;  // number of changed records since the last checkpoint began

  // A checkpoint has three steps, made by one thread at a time. freeze() starts a new journal segment, sets the changes
  // so far aside, and returns the segment that recovery would start from. Then either commit_frozen() makes them and
  // `more` durable in LMDB and trims the journal, or thaw() takes them back after a failure.
  Result<SegmentNumber> freeze();
  Result<bool> has_frozen(std::string_view key) const;  // whether the record exists after commit_frozen()
  // `more`: extra records; their keys must not have been written since freeze().
  Status commit_frozen(SegmentNumber first_segment, const std::vector<std::pair<std::string, std::string>>& more);
  void thaw();

 private:
  friend class WriteTxn;
  using Changes = std::map<std::string, std::optional<std::string>, std::less<>>;  // nullopt: erased

  Catalog(io::Storage& storage, LmdbEnvironment env, const crypto::Key& root, const Uuid& store);
  Status load();
  // Allocates no memory, because it must not fail once the changes are in the journal.
  void apply(Changes changes) noexcept EXCLUDES(memory_);
  void count_nodes(std::string_view key, bool is_put) REQUIRES(memory_);
  struct Piece;
  // The next records of a scan: from `from` on, up to `most` from LMDB and from each table of changes.
  Result<Piece> read_piece(std::string_view prefix, std::string_view from, std::size_t most) const EXCLUDES(memory_);
  Result<SuperRecord> commit_to_lmdb(const Changes& changes, const std::vector<std::pair<std::string, std::string>>& more,
                                     SegmentNumber first_segment);

  io::Storage& storage_;
  LmdbEnvironment env_;
  const Uuid store_;
  Epochs epochs_;
  std::unique_ptr<RecordSeal> seal_;
  std::unique_ptr<Journal> journal_;
  Journal::History history_;
  SuperRecord super_;  // of the last checkpoint; used by the checkpointing thread only

  Mutex writer_;  // held by the only WriteTxn
  std::atomic<std::uint64_t> next_ino_{2};
  std::atomic<std::uint64_t> next_layer_{1};
  std::atomic<std::uint64_t> nodes_{0};
  std::uint64_t newest_ino_ GUARDED_BY(memory_) = 1;  // highest number that has, or had, a record

  mutable SharedMutex memory_;
  Changes active_ GUARDED_BY(memory_);
  Changes frozen_ GUARDED_BY(memory_);  // being committed; constant meanwhile
};

// A write transaction: holds the writer's lock during its lifetime and changes nothing unless commit() succeeds. It is
// written as one journal record, so bytes() must not exceed Journal::kMaxPayload: unbounded changes need several
// transactions.
class SCOPED_CAPABILITY WriteTxn {
 public:
  explicit WriteTxn(Catalog& catalog) ACQUIRE(catalog.writer_);
  ~WriteTxn() RELEASE();
  WriteTxn(const WriteTxn&) = delete;
  WriteTxn& operator=(const WriteTxn&) = delete;

  Result<std::optional<std::string>> get(std::string_view key) const;  // sees the transaction's own changes
  void put(std::string_view key, std::string_view value);
  void erase(std::string_view key);
  // Adds a change of blocks to the same journal record. The caller applies it to the layer after commit().
  void change_layer(LayerId layer, std::string_view change);
  Ino new_ino();
  std::size_t bytes() const { return record_.text().size(); }  // of the record so far
  // Appends the record to the journal and makes the changes visible to readers; returns the record's segment. Call at
  // most once. Errc::too_large, with nothing changed, if the record exceeds Journal::kMaxPayload.
  Result<SegmentNumber> commit();

 private:
  Catalog& catalog_;
  Writer record_;
  Catalog::Changes changes_;
};

}  // namespace rekeyfs::catalog
