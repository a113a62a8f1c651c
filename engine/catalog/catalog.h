// Catalog: every record of the store by key. LMDB holds the last checkpoint, a table in memory what changed
// since, the journal makes those changes outlive the process.
//
// Reads (get, scan) come from any thread at any time. Writes are transactions (WriteTxn), one at a time, atomic in
// the journal and in memory. Values are opaque here; their layouts belong to the folders that use them.
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

// One decoded step of a journal record.
struct Op {
  enum class Kind : std::uint8_t {  // numbers on disk
    put = 1,
    erase = 2,
    layer = 3,  // a change of a layer's blocks; `value` is blocks/'s business
    synced = 4,  // all data of the layer is durable that records before `covered` speak of
  };
  Kind kind = Kind::put;
  std::string key;  // put, erase
  LayerId layer;    // layer, synced; none (0) if a sync found no data to make durable
  std::string value;
  Journal::Position covered = {};  // synced
};
Result<std::vector<Op>> decode_ops(std::string_view payload);

class Catalog {
 public:
  // A new catalog in the empty `directory`, holding `records`; its first journal segment exists afterwards.
  static Status create(io::Storage& storage, const std::string& directory, const crypto::Key& root, const Uuid& store,
                       const std::vector<std::pair<std::string, std::string>>& records);
  // Verifies, opens for reading, and reads the journal's history, without a change to any file. What recovery does, and
  // start(), may follow. References outlive it.
  static Result<std::unique_ptr<Catalog>> open(io::Storage& storage, const std::string& directory,
                                               const crypto::Key& root, const Uuid& store);

  // What the journal holds beyond the last checkpoint; empties it. Catalog ops are to be handed to recover_op().
  Journal::History take_history();
  void recover_op(const Op& op);
  // LMDB can write from now on. start() sees to it; before that, whoever is about to rename its file.
  Status make_writable();
  // A new epoch and a new journal. Until the next checkpoint has committed, nothing may be sealed under it.
  Status start(SegmentNumber first_segment);
  // The opposite: transactions answer Errc::read_only, as they do before start(). No other thread uses the catalog yet.
  void stop() { journal_.reset(); }
  bool is_started() const { return journal_ != nullptr; }

  Result<std::optional<std::string>> get(std::string_view key) const;
  // Pairs whose key starts with `prefix` and is at or after `from`, in order, until `visit` returns false. Reads some
  // hundred records at a time and holds no lock in between: writers do not wait for a scan, and `visit` may use the catalog.
  // So a scan is no snapshot. It visits each record once that stays as it is. Of a record that is put or erased
  // meanwhile it may show what was before or after, and of a transaction, one change and not the other. Within a
  // WriteTxn of the same thread nothing changes; the scan does not see what that transaction is about to.
  using Visit = std::function<bool(std::string_view key, std::string_view value)>;
  Status scan(std::string_view prefix, std::string_view from, const Visit& visit) const;

  LayerId new_layer() { return LayerId{next_layer_.fetch_add(1)}; }  // a number never used before
  const Epochs& epochs() const { return epochs_; }
  const SuperRecord& checkpointed() const { return super_; }  // not while a checkpoint is made
  std::uint64_t nodes() const { return nodes_.load(); }

  // These, and checkpoints, only while it is started.
  Status sync_journal() { return journal_->sync(); }
  Journal::Position journal_end() const { return journal_->end(); }
  Result<SegmentNumber> append_synced(const std::vector<LayerId>& layers, const Journal::Position& covered);
  std::uint64_t journal_bytes() const { return journal_->segment_bytes(); }
  bool has_changes() const { return changes() > 0; }
  std::size_t changes() const;  // records, since the last checkpoint began

  // Checkpoint, in three steps by one thread at a time: freeze() ends a journal segment and sets the changes
  // so far aside; commit_frozen() makes them and `more` durable in LMDB and trims the journal; or thaw() takes
  // them back when the checkpoint failed. Returns the segment that recovery would start from.
  Result<SegmentNumber> freeze();
  Result<bool> has_frozen(std::string_view key) const;  // whether a commit_frozen() now makes, or keeps, such a record
  // `more`: of keys that nobody has put a record to since freeze().
  Status commit_frozen(SegmentNumber first_segment, const std::vector<std::pair<std::string, std::string>>& more);
  void thaw();

 private:
  friend class WriteTxn;
  using Changes = std::map<std::string, std::optional<std::string>, std::less<>>;  // nullopt: erased

  Catalog(io::Storage& storage, LmdbEnvironment env, const crypto::Key& root, const Uuid& store);
  Status load();
  // Takes no memory: it must not fail when the changes are in the journal.
  void apply(Changes changes) noexcept EXCLUDES(memory_);
  void count_nodes(std::string_view key, bool is_put) REQUIRES(memory_);
  struct Piece;
  // What a scan visits next: the records from `from` on, `most` from each place that has some.
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
  SuperRecord super_;  // of the last checkpoint; the checkpointing thread's

  Mutex writer_;  // held by the one WriteTxn
  std::atomic<std::uint64_t> next_ino_{2};
  std::atomic<std::uint64_t> next_layer_{1};
  std::atomic<std::uint64_t> nodes_{0};
  std::uint64_t newest_ino_ GUARDED_BY(memory_) = 1;  // the highest that has a record or had one

  mutable SharedMutex memory_;
  Changes active_ GUARDED_BY(memory_);
  Changes frozen_ GUARDED_BY(memory_);  // being committed: stays as it is meanwhile
};

// Holds the writer's lock from construction to destruction; nothing happens unless commit() succeeds. All of it is one
// record of the journal, so bytes() may not exceed Journal::kMaxPayload: what changes any number of records takes several
// transactions.
class SCOPED_CAPABILITY WriteTxn {
 public:
  explicit WriteTxn(Catalog& catalog) ACQUIRE(catalog.writer_);
  ~WriteTxn() RELEASE();
  WriteTxn(const WriteTxn&) = delete;
  WriteTxn& operator=(const WriteTxn&) = delete;

  Result<std::optional<std::string>> get(std::string_view key) const;  // sees its own changes
  void put(std::string_view key, std::string_view value);
  void erase(std::string_view key);
  // A change of blocks that goes into the same journal record; the caller applies it to the layer after commit().
  void change_layer(LayerId layer, std::string_view change);
  Ino new_ino();
  std::size_t bytes() const { return record_.text().size(); }  // of its record so far
  // In the journal and visible to readers; the segment it went to. Once. Errc::too_large, and nothing happened, if its
  // record has more than Journal::kMaxPayload bytes.
  Result<SegmentNumber> commit();

 private:
  Catalog& catalog_;
  Writer record_;
  Catalog::Changes changes_;
};

}  // namespace rekeyfs::catalog
