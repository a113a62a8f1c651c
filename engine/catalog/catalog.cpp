#include "engine/catalog/catalog.h"

#include <algorithm>

#include "engine/catalog/verify.h"

namespace rekeyfs::catalog {
namespace {

constexpr std::string_view kJournalPurpose = "rekeyfs journal";

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

// LMDB maps its lock file. Without room for a page of it, a reader on a full disk would be killed by SIGBUS.
Status allocate_lock_file(io::Storage& storage) {
  constexpr std::uint64_t kRoom = 64u << 10;  // for a thousand readers, more than LmdbEnvironment asks for
  RK_TRY_ASSIGN(const std::unique_ptr<io::File> file, storage.open("catalog/lock.mdb", io::OpenMode::create));
  const Status allocated = file->allocate(kRoom);
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
      default: return fail(Errc::corrupt, "a journal record holds a step this program does not know");
    }
    ops.push_back(std::move(op));
  }
  if (!in.ok()) return fail(Errc::corrupt, "a journal record ends early");
  return ops;
}

Catalog::Catalog(io::Storage& storage, LmdbEnvironment env, const crypto::Key& root, const Uuid& store)
    : storage_(storage), env_(std::move(env)), store_(store), epochs_(root) {}

Status Catalog::create(io::Storage& storage, const std::string& directory, const crypto::Key& root, const Uuid& store,
                       const std::vector<std::pair<std::string, std::string>>& records) {
  RK_TRY(allocate_lock_file(storage));
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
  RK_TRY_ASSIGN(const Census census, verify_catalog(directory, root, store));
  RK_TRY(allocate_lock_file(storage));
  RK_TRY_ASSIGN(LmdbEnvironment env, LmdbEnvironment::open(directory, LmdbEnvironment::Access::read_write));
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
  if (op.kind == Op::Kind::put && op.key[0] == static_cast<char>(Table::inode))
    next_ino_ = std::max(next_ino_.load(), Reader(std::string_view(op.key).substr(1)).get_be64() + 1);
  const bool names_layer = op.key[0] == static_cast<char>(Table::layer) || op.key[0] == static_cast<char>(Table::garbage);
  if (op.kind == Op::Kind::put && names_layer)
    next_layer_ = std::max(next_layer_.load(), Reader(std::string_view(op.key).substr(1)).get_be64() + 1);
  apply({op}, changes_of({op}));
}

Status Catalog::start(SegmentNumber first_segment) {
  if (epochs_.newest() >= kLastEpoch)
    return fail(Errc::too_large, "the store has been mounted as often as a store can be: copy its images into a new store");
  const EpochId epoch{epochs_.newest().value() + 1};
  RK_TRY_ASSIGN(const Salt salt, random_salt());
  epochs_.add(epoch, salt);
  epochs_.set_current(epoch);
  RK_TRY_ASSIGN(crypto::Aead aead, epochs_.make_aead(epoch, kJournalPurpose));
  RK_TRY_ASSIGN(journal_, Journal::start(storage_, store_, epoch, std::move(aead), first_segment));
  Op op;
  op.key = make_key(Table::epoch, epoch.value());
  op.value = std::string(as_text(salt));
  apply({op}, changes_of({op}));
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

Status Catalog::scan(std::string_view prefix, std::string_view from, const Visit& visit) const {
  const std::string_view start = std::max(prefix, from);
  SharedLock lock(memory_);
  auto active = active_.lower_bound(start);
  auto frozen = frozen_.lower_bound(start);
  bool wanted = true;
  // Visits the changes before `limit` (all of the prefix without one); true if `limit` itself is among them.
  auto visit_changes = [&](std::optional<std::string_view> limit) REQUIRES_SHARED(memory_) {
    for (;;) {
      const bool more_active = active != active_.end() && starts_with(active->first, prefix);
      const bool more_frozen = frozen != frozen_.end() && starts_with(frozen->first, prefix);
      if (!wanted || (!more_active && !more_frozen)) return false;
      const bool take_active = more_active && (!more_frozen || active->first <= frozen->first);
      const auto current = take_active ? active : frozen;
      if (limit && current->first > *limit) return false;
      if (more_active && more_frozen && active->first == frozen->first) ++frozen;
      if (take_active) ++active; else ++frozen;
      if (current->second) wanted = visit(current->first, *current->second);
      if (limit && current->first == *limit) return true;
    }
  };

  Status status;
  RK_TRY_ASSIGN(const LmdbReadTxn txn, LmdbReadTxn::begin(env_));
  RK_TRY(txn.scan(start, [&](std::string_view key, std::string_view sealed) NO_THREAD_SAFETY_ANALYSIS {
    if (!starts_with(key, prefix)) return false;
    if (visit_changes(key)) return wanted;
    if (!wanted) return false;
    auto value = seal_->open(key, sealed);
    if (!value) {
      status = fail(value.error());
      return false;
    }
    wanted = visit(key, *value);
    return wanted;
  }));
  RK_TRY(status);
  visit_changes(std::nullopt);
  return {};
}

Catalog::Changes Catalog::changes_of(const std::vector<Op>& ops) {
  Changes changes;
  for (const Op& op : ops)
    if (op.kind == Op::Kind::put || op.kind == Op::Kind::erase)
      changes.insert_or_assign(op.key, op.kind == Op::Kind::put ? std::optional(op.value) : std::nullopt);
  return changes;
}

// Under one lock: a reader sees all of a transaction or nothing.
void Catalog::apply(const std::vector<Op>& ops, Changes changes) noexcept {
  UniqueLock lock(memory_);
  for (const Op& op : ops) count_nodes(op);
  while (!changes.empty()) {
    auto change = changes.extract(changes.begin());
    const auto found = active_.find(change.key());
    if (found == active_.end()) active_.insert(std::move(change));
    else found->second.swap(change.mapped());
  }
}

void Catalog::count_nodes(const Op& op) {
  if (op.kind != Op::Kind::put && op.kind != Op::Kind::erase) return;
  if (op.key[0] != static_cast<char>(Table::inode)) return;
  const std::uint64_t ino = Reader(std::string_view(op.key).substr(1)).get_be64();
  // Inode numbers only grow, so a record beyond the newest is a new node.
  if (op.kind == Op::Kind::erase) nodes_.fetch_sub(1);
  else if (ino > newest_ino_) nodes_.fetch_add(1);
  newest_ino_ = std::max(newest_ino_, ino);
}

Result<SegmentNumber> Catalog::append_synced(const std::vector<LayerId>& layers, const Journal::Position& covered) {
  Writer record;
  Op op;
  op.kind = Op::Kind::synced;
  op.covered = covered;
  if (layers.empty()) encode_op(record, op);
  for (LayerId layer : layers) {
    op.layer = layer;
    encode_op(record, op);
  }
  return journal_->append(record.text());
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
  active_.merge(frozen_);  // what is in both is newer there
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
  Changes committed;  // destroyed without the lock: they may be many
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
  // As it is there, not as it is remembered: a commit whose failure was reported may have taken place.
  SuperRecord super;
  RK_TRY_ASSIGN(const auto sealed_super, txn.get(super_key));
  if (sealed_super) {  // else it is being made
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
  for (auto op = ops_.rbegin(); op != ops_.rend(); ++op) {
    if (op->key != key) continue;
    return op->kind == Op::Kind::put ? std::optional(op->value) : std::nullopt;
  }
  return catalog_.get(key);
}

void WriteTxn::put(std::string_view key, std::string_view value) {
  ops_.push_back({Op::Kind::put, std::string(key), {}, std::string(value), {}});
}
void WriteTxn::erase(std::string_view key) { ops_.push_back({Op::Kind::erase, std::string(key), {}, {}, {}}); }
void WriteTxn::change_layer(LayerId layer, std::string_view change) {
  ops_.push_back({Op::Kind::layer, {}, layer, std::string(change), {}});
}
Ino WriteTxn::new_ino() { return Ino{catalog_.next_ino_.fetch_add(1)}; }

Result<SegmentNumber> WriteTxn::commit() {
  if (ops_.empty()) return SegmentNumber{0};
  for (const Op& op : ops_) encode_op(record_, op);
  Catalog::Changes changes = Catalog::changes_of(ops_);  // needs memory; what follows the record must not
  RK_TRY_ASSIGN(const SegmentNumber segment, catalog_.journal_->append(record_.text()));
  catalog_.apply(ops_, std::move(changes));
  return segment;
}

}  // namespace rekeyfs::catalog
