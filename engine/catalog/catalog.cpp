#include "engine/catalog/catalog.h"

#include <algorithm>

#include "engine/catalog/verify.h"

namespace rekeyfs::catalog {
namespace {

constexpr std::string_view kJournalPurpose = "rekeyfs journal";
// A scan starts with few records, because many callers want one or two, and then reads more at a time.
constexpr std::size_t kFirstPiece = 16, kNextPiece = 256;
constexpr std::size_t kPieceBytes = 1u << 20;
constexpr std::size_t kSyncedInRecord = 4096;  // layers in one record of append_synced()

bool starts_with(std::string_view key, std::string_view prefix) { return key.substr(0, prefix.size()) == prefix; }

void encode_op(Writer& out, const Op& op) {
  out.put(static_cast<std::uint8_t>(op.kind));
  switch (op.kind) {
    case Op::Kind::put: out.put_string(op.key).put_string(op.value); break;
    case Op::Kind::erase: out.put_string(op.key); break;
    case Op::Kind::layer: out.put(op.layer.value()).put_string(op.value); break;
    case Op::Kind::synced: out.put(op.layer.value()).put(op.covered.segment).put(op.covered.offset); break;
  }
}

constexpr std::string_view kLockFile = "catalog/lock.mdb";

// Checks the lock file, which is not read here: damage to it would make a later mount fail, so a check has to report
// it.
Status check_lock_file(io::Storage& storage) {
  const auto file = storage.open(kLockFile, io::OpenMode::read);
  return file || file.error().code == Errc::not_found ? Status{} : fail(file.error());
}

// LMDB maps its lock file. Without allocated space, a reader on a full disk would be killed by SIGBUS.
Status allocate_lock_file(io::Storage& storage) {
  constexpr std::uint64_t kRoom = 64u << 10;  // enough for a thousand readers, more than LmdbEnvironment asks for
  RK_TRY_ASSIGN(const std::unique_ptr<io::File> file, storage.open(kLockFile, io::OpenMode::create));
  const Status allocated = file->reserve(0, kRoom);
  return allocated || allocated.error().code == Errc::not_supported ? Status{} : allocated;
}

Result<Salt> random_salt() {
  Salt salt;
  RK_TRY(crypto::fill_random(salt));
  return salt;
}

}  // namespace

Result<std::vector<Op>> decode_ops(std::string_view payload) {
  std::vector<Op> ops;
  Reader in(payload);
  while (in.ok() && in.left() > 0) {
    Op op;
    op.kind = static_cast<Op::Kind>(in.get<std::uint8_t>());
    switch (op.kind) {
      case Op::Kind::put:
        op.key = in.get_string();
        op.value = in.get_string();
        break;
      case Op::Kind::erase: op.key = in.get_string(); break;
      case Op::Kind::layer:
        op.layer = LayerId{in.get<std::uint64_t>()};
        op.value = in.get_string();
        break;
      case Op::Kind::synced:
        op.layer = LayerId{in.get<std::uint64_t>()};
        op.covered.segment = in.get<std::uint64_t>();
        op.covered.offset = in.get<std::uint64_t>();
        break;
      default: return fail(Errc::wrong_version, "the journal holds a step of a later version of rekeyfs: use that version");
    }
    const bool names_record = op.kind == Op::Kind::put || op.kind == Op::Kind::erase;
    if (in.ok() && names_record && op.key.empty()) return fail(Errc::corrupt, "a journal record changes a record without a key");
    ops.push_back(std::move(op));
  }
  if (!in.ok()) return fail(Errc::corrupt, "a journal record ends early");
  return ops;
}

Catalog::Catalog(io::Storage& storage, LmdbEnvironment env, const crypto::Key& root, const Uuid& store)
    : storage_(storage), env_(std::move(env)), store_(store), epochs_(root) {}

Status Catalog::create(io::Storage& storage, const std::string& directory, const crypto::Key& root, const Uuid& store,
                       const std::vector<std::pair<std::string, std::string>>& records) {
  RK_TRY(allocate_lock_file(storage));  // before LMDB maps it
  RK_TRY_ASSIGN(LmdbEnvironment env, LmdbEnvironment::open(directory, LmdbEnvironment::Access::read_write));
  Catalog catalog(storage, std::move(env), root, store);
  RK_TRY_ASSIGN(RecordSeal seal, RecordSeal::create(root, store, catalog.epochs_));
  catalog.seal_ = std::make_unique<RecordSeal>(std::move(seal));
  RK_TRY(catalog.start(1));
  RK_TRY_ASSIGN(const SegmentNumber first, catalog.freeze());
  return catalog.commit_frozen(first, records);
}

Result<std::unique_ptr<Catalog>> Catalog::open(io::Storage& storage, const std::string& directory,
                                               const crypto::Key& root, const Uuid& store) {
  RK_TRY(check_lock_file(storage));
  RK_TRY_ASSIGN(const Census census, verify_catalog(directory, root, store));
  RK_TRY_ASSIGN(LmdbEnvironment env, LmdbEnvironment::open(directory, LmdbEnvironment::Access::read_only));
  std::unique_ptr<Catalog> catalog(new Catalog(storage, std::move(env), root, store));
  catalog->nodes_ = census.nodes;
  RK_TRY_ASSIGN(RecordSeal seal, RecordSeal::create(root, store, catalog->epochs_));
  catalog->seal_ = std::make_unique<RecordSeal>(std::move(seal));
  RK_TRY(catalog->load());
  return catalog;
}

Status Catalog::load() {
  RK_TRY_ASSIGN(const std::optional<std::string> super, get(make_key(Table::super)));
  if (!super) return fail(Errc::corrupt, "the catalog has no super record");
  RK_TRY_ASSIGN(super_, SuperRecord::decode(*super));
  next_ino_ = super_.next_ino;
  next_layer_ = super_.next_layer;
  {
    UniqueLock lock(memory_);
    newest_ino_ = super_.next_ino - 1;
  }
  RK_TRY(scan(make_key(Table::epoch), "", [&](std::string_view key, std::string_view value) {
    Salt salt{};
    std::memcpy(salt.data(), value.data(), std::min(value.size(), salt.size()));
    epochs_.add(EpochId{static_cast<std::uint32_t>(Reader(key.substr(1)).get_be64())}, salt);
    return true;
  }));
  RK_TRY_ASSIGN(history_, Journal::read(storage_, store_, super_.journal_first,
                                        [this](EpochId epoch) { return epochs_.aead_of(epoch, kJournalPurpose); }));
  return {};
}

Journal::History Catalog::take_history() { return std::exchange(history_, {}); }

void Catalog::recover_op(const Op& op) {
  if (op.kind != Op::Kind::put && op.kind != Op::Kind::erase) return;
  if (op.kind == Op::Kind::put && op.key[0] == static_cast<char>(Table::inode))
    next_ino_ = std::max(next_ino_.load(), Reader(std::string_view(op.key).substr(1)).get_be64() + 1);
  const bool names_layer = op.key[0] == static_cast<char>(Table::layer) || op.key[0] == static_cast<char>(Table::garbage);
  if (op.kind == Op::Kind::put && names_layer)
    next_layer_ = std::max(next_layer_.load(), Reader(std::string_view(op.key).substr(1)).get_be64() + 1);
  Changes changes;
  changes.emplace(op.key, op.kind == Op::Kind::put ? std::optional(op.value) : std::nullopt);
  apply(std::move(changes));
}

Status Catalog::make_writable() {
  RK_TRY(allocate_lock_file(storage_));
  return env_.make_writable();
}

Status Catalog::start(SegmentNumber first_segment) {
  if (epochs_.newest() >= kLastEpoch)
    return fail(Errc::too_large, "the store has reached its maximum number of mounts: copy its images into a new store");
  const EpochId epoch{epochs_.newest().value() + 1};
  RK_TRY_ASSIGN(const Salt salt, random_salt());
  epochs_.add(epoch, salt);
  epochs_.set_current(epoch);
  RK_TRY_ASSIGN(crypto::Aead aead, epochs_.make_aead(epoch, kJournalPurpose));
  RK_TRY(make_writable());
  RK_TRY_ASSIGN(journal_, Journal::start(storage_, store_, epoch, std::move(aead), first_segment));
  Changes changes;
  changes.emplace(make_key(Table::epoch, epoch.value()), std::string(as_text(salt)));
  apply(std::move(changes));
  return {};
}

Result<std::optional<std::string>> Catalog::get(std::string_view key) const {
  {
    SharedLock lock(memory_);
    if (const auto found = active_.find(key); found != active_.end()) return found->second;
    if (const auto found = frozen_.find(key); found != frozen_.end()) return found->second;
  }
  RK_TRY_ASSIGN(const LmdbReadTxn txn, LmdbReadTxn::begin(env_));
  RK_TRY_ASSIGN(const auto sealed, txn.get(key));
  if (!sealed) return std::optional<std::string>{};
  RK_TRY_ASSIGN(std::string value, seal_->open(key, *sealed));
  return std::optional(std::move(value));
}

Result<bool> Catalog::has_frozen(std::string_view key) const {
  {
    SharedLock lock(memory_);
    if (const auto found = frozen_.find(key); found != frozen_.end()) return found->second.has_value();
  }
  RK_TRY_ASSIGN(const LmdbReadTxn txn, LmdbReadTxn::begin(env_));
  RK_TRY_ASSIGN(const auto sealed, txn.get(key));
  return sealed.has_value();
}

struct Catalog::Piece {
  struct Value {
    std::string bytes;
    bool is_sealed;  // encrypted, as stored in LMDB
  };
  std::map<std::string, std::optional<Value>, std::less<>> records;  // nullopt: erased
  std::optional<std::string> end;  // keys from here on belong to the next piece; nullopt: this is the last piece

  void end_at(std::string_view key) {
    if (!end || key < *end) end = key;
  }
};

Result<Catalog::Piece> Catalog::read_piece(std::string_view prefix, std::string_view from, std::size_t most) const {
  Piece piece;
  std::optional<LmdbReadTxn> txn;
  {
    SharedLock lock(memory_);
    for (const Changes* changes : {&active_, &frozen_}) {  // newer ones first: they take precedence
      std::size_t taken = 0, bytes = 0;
      for (auto change = changes->lower_bound(from); change != changes->end() && starts_with(change->first, prefix); ++change) {
        if (taken++ == most || bytes > kPieceBytes) {
          piece.end_at(change->first);
          break;
        }
        const auto& [key, value] = *change;
        bytes += value ? value->size() : 0;
        piece.records.try_emplace(key, value ? std::optional(Piece::Value{*value, false}) : std::nullopt);
      }
    }
    RK_TRY_ASSIGN(LmdbReadTxn begun, LmdbReadTxn::begin(env_));  // a snapshot of the same moment
    txn.emplace(std::move(begun));
  }
  std::size_t taken = 0, bytes = 0;
  RK_TRY(txn->scan(from, [&](std::string_view key, std::string_view sealed) {
    if (!starts_with(key, prefix) || (piece.end && key >= *piece.end)) return false;
    if (taken++ == most || bytes > kPieceBytes) {
      piece.end_at(key);
      return false;
    }
    bytes += sealed.size();
    piece.records.try_emplace(std::string(key), Piece::Value{std::string(sealed), true});
    return true;
  }));
  return piece;
}

Status Catalog::scan(std::string_view prefix, std::string_view from, const Visit& visit) const {
  std::string next(std::max(prefix, from));
  for (std::size_t most = kFirstPiece;; most = kNextPiece) {
    RK_TRY_ASSIGN(const Piece piece, read_piece(prefix, next, most));
    for (const auto& [key, found] : piece.records) {
      if (piece.end && key >= *piece.end) break;
      if (!found) continue;
      if (found->is_sealed) {
        RK_TRY_ASSIGN(const std::string value, seal_->open(key, found->bytes));
        if (!visit(key, value)) return {};
      } else if (!visit(key, found->bytes)) {
        return {};
      }
    }
    if (!piece.end) return {};
    next = *piece.end;
  }
}

// Applies under one lock, so that a reader sees either none or all of a transaction.
void Catalog::apply(Changes changes) noexcept {
  UniqueLock lock(memory_);
  while (!changes.empty()) {
    auto change = changes.extract(changes.begin());
    count_nodes(change.key(), change.mapped().has_value());
    const auto found = active_.find(change.key());
    if (found == active_.end()) active_.insert(std::move(change));
    else found->second.swap(change.mapped());
  }
}

void Catalog::count_nodes(std::string_view key, bool is_put) {
  if (key.empty() || key[0] != static_cast<char>(Table::inode)) return;
  const std::uint64_t ino = Reader(key.substr(1)).get_be64();
  // Inode numbers only grow, and changes come in key order, so a number above the highest one is a new node.
  const bool is_new = ino > newest_ino_;
  if (is_put && is_new) nodes_.fetch_add(1);
  if (!is_put && !is_new) nodes_.fetch_sub(1);
  newest_ino_ = std::max(newest_ino_, ino);
}

// Appends several records if necessary; each of them covers only the layers that it names.
Result<SegmentNumber> Catalog::append_synced(const std::vector<LayerId>& layers, const Journal::Position& covered) {
  Op op;
  op.kind = Op::Kind::synced;
  op.covered = covered;
  for (std::size_t next = 0;;) {
    Writer record;
    if (layers.empty()) encode_op(record, op);
    for (const std::size_t end = std::min(layers.size(), next + kSyncedInRecord); next < end; ++next) {
      op.layer = layers[next];
      encode_op(record, op);
    }
    RK_TRY_ASSIGN(const SegmentNumber segment, journal_->append(record.text()));
    if (next == layers.size()) return segment;
  }
}

std::size_t Catalog::changes() const {
  SharedLock lock(memory_);
  return active_.size();
}

Result<SegmentNumber> Catalog::freeze() {
  Lock writer(writer_);
  RK_TRY_ASSIGN(const SegmentNumber first, journal_->rotate());
  UniqueLock lock(memory_);
  frozen_.swap(active_);
  return first;
}

void Catalog::thaw() {
  UniqueLock lock(memory_);
  active_.merge(frozen_);  // for keys in both, the newer value in active_ is kept
  frozen_.clear();
}

Status Catalog::commit_frozen(SegmentNumber first_segment,
                              const std::vector<std::pair<std::string, std::string>>& more) {
  const Changes* frozen = nullptr;
  {
    SharedLock lock(memory_);
    frozen = &frozen_;
  }
  RK_TRY_ASSIGN(super_, commit_to_lmdb(*frozen, more, first_segment));
  Changes committed;  // destroyed without the lock, because there may be many
  {
    UniqueLock lock(memory_);
    committed.swap(frozen_);
  }
  return journal_->remove_before(first_segment);
}

Result<SuperRecord> Catalog::commit_to_lmdb(const Changes& changes, const std::vector<std::pair<std::string, std::string>>& more,
                                            SegmentNumber first_segment) {
  RK_TRY_ASSIGN(LmdbWriteTxn txn, LmdbWriteTxn::begin(env_));
  const std::string super_key = make_key(Table::super);
  // Reads the stored super record instead of super_: a commit that reported a failure may have taken place.
  SuperRecord super;
  RK_TRY_ASSIGN(const auto sealed_super, txn.get(super_key));
  if (sealed_super) {  // otherwise the catalog is being created
    RK_TRY_ASSIGN(const std::string bytes, seal_->open_by_root(super_key, *sealed_super));
    RK_TRY_ASSIGN(super, SuperRecord::decode(bytes));
  }
  super.checkpoint += 1;
  super.next_ino = next_ino_;
  super.next_layer = next_layer_;
  super.journal_first = first_segment;
  auto write = [&](std::string_view key, const std::optional<std::string>& value) -> Status {
    RK_TRY_ASSIGN(const auto old, txn.get(key));
    if (old) seal_->subtract(super.digest, key, *old);
    if (!value) return txn.erase(key);
    RK_TRY_ASSIGN(const std::string sealed, seal_->seal(key, *value));
    seal_->add(super.digest, key, sealed);
    return txn.put(key, sealed);
  };
  for (const auto& [key, value] : changes) RK_TRY(write(key, value));
  for (const auto& [key, value] : more) RK_TRY(write(key, value));
  RK_TRY_ASSIGN(const std::string sealed, seal_->seal_by_root(super_key, super.encode()));
  RK_TRY(txn.put(super_key, sealed));
  RK_TRY(txn.commit());
  return super;
}

WriteTxn::WriteTxn(Catalog& catalog) : catalog_(catalog) { catalog.writer_.lock(); }
WriteTxn::~WriteTxn() { catalog_.writer_.unlock(); }

Result<std::optional<std::string>> WriteTxn::get(std::string_view key) const {
  if (const auto found = changes_.find(key); found != changes_.end()) return found->second;
  return catalog_.get(key);
}

void WriteTxn::put(std::string_view key, std::string_view value) {
  encode_op(record_, {Op::Kind::put, std::string(key), {}, std::string(value), {}});
  changes_.insert_or_assign(std::string(key), std::string(value));
}
void WriteTxn::erase(std::string_view key) {
  encode_op(record_, {Op::Kind::erase, std::string(key), {}, {}, {}});
  changes_.insert_or_assign(std::string(key), std::nullopt);
}
void WriteTxn::change_layer(LayerId layer, std::string_view change) {
  encode_op(record_, {Op::Kind::layer, {}, layer, std::string(change), {}});
}
Ino WriteTxn::new_ino() { return Ino{catalog_.next_ino_.fetch_add(1)}; }

// put() and erase() have allocated everything; nothing after the append may need memory.
Result<SegmentNumber> WriteTxn::commit() {
  if (bytes() == 0) return SegmentNumber{0};
  if (!catalog_.is_started()) return fail(Errc::read_only, "the store was mounted read-only");
  RK_TRY_ASSIGN(const SegmentNumber segment, catalog_.journal_->append(record_.text()));
  catalog_.apply(std::move(changes_));
  return segment;
}

}  // namespace rekeyfs::catalog
