#include "engine/catalog/salvage.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <set>
#include <vector>

#include "engine/catalog/journal.h"
#include "engine/catalog/lmdb.h"
#include "engine/catalog/lmdb_pages.h"
#include "engine/catalog/tables.h"

namespace rekeyfs::catalog {
namespace {

constexpr std::uint64_t kNumberGap = std::uint64_t{1} << 32;  // skipped if the last assigned number is unknown

class Salvager {
 public:
  Salvager(const LmdbPages& pages, const crypto::Key& root, SegmentNumber oldest_segment)
      : pages_(pages), epochs_(root), oldest_segment_(oldest_segment) {}

  Result<Salvaged> run(const crypto::Key& root, const Uuid& store) {
    RK_TRY_ASSIGN(RecordSeal seal, RecordSeal::create(root, store, epochs_));
    seal_ = &seal;
    load_epochs();
    find_newest_super();
    const std::optional<LmdbMeta> meta = pages_.newest_meta();
    const Salvaged likely = from_likely_root();
    if (likely.whole || !meta) return likely;
    Salvaged found = from_tree(meta->root);
    add_hidden(found, pages_.free_pages(*meta));
    return found;
  }

 private:
  void visit_leaves(const std::function<void(PageNumber, const LmdbNode&)>& visit) const {
    for (PageNumber page = 2; page < pages_.count(); ++page) {
      if (!pages_.is_leaf(page)) continue;
      if (const auto nodes = pages_.nodes(page))
        for (const LmdbNode& node : *nodes) visit(page, node);
    }
  }

  // Salts never change and are never removed, so any copy that decrypts is right, wherever it is.
  void load_epochs() {
    visit_leaves([&](PageNumber, const LmdbNode& node) {
      if (node.key.size() != 9 || node.key[0] != static_cast<char>(Table::epoch)) return;
      const auto value = seal_->open_by_root(node.key, node.value);
      if (!value || value->size() != sizeof(Salt)) return;
      Salt salt;
      std::memcpy(salt.data(), value->data(), salt.size());
      epochs_.add(EpochId{static_cast<std::uint32_t>(Reader(node.key.substr(1)).get_be64())}, salt);
      salts_.insert_or_assign(std::string(node.key), std::string(node.value));
    });
  }

  std::optional<SuperRecord> super_in(const LmdbNode& node) const {
    if (node.key != make_key(Table::super)) return std::nullopt;
    const auto bytes = seal_->open(node.key, node.value);
    const auto super = bytes ? SuperRecord::decode(*bytes) : fail(Errc::corrupt);
    return super ? std::optional(*super) : std::nullopt;
  }

  void find_newest_super() {
    visit_leaves([&](PageNumber, const LmdbNode& node) {
      const auto super = super_in(node);
      if (super && super->checkpoint >= newest_.checkpoint) newest_ = *super;
    });
  }

  void take(Salvaged& into, const LmdbNode& node) const {
    if (!node.key.empty() && node.key != make_key(Table::super) && seal_->open(node.key, node.value))
      into.records.emplace(node.key, node.value);
  }

  void conclude(Salvaged& found) const {
    for (const auto& [key, value] : salts_) found.records.emplace(key, value);
    RecordSeal::MultisetDigest digest{};
    for (const auto& [key, value] : found.records) seal_->add(digest, key, value);
    // The tree of an older checkpoint may still be complete, but not the journal that continued from it.
    found.whole = digest == found.super.digest && found.super.checkpoint == newest_.checkpoint &&
                  found.super.journal_first >= oldest_segment_;
  }

  Salvaged from_tree(PageNumber root) {
    Salvaged found;
    reached_.clear();
    bool has_super = false;
    pages_.walk(root, reached_, [&](const LmdbNode& node) {
      take(found, node);
      if (const auto super = super_in(node)) {
        found.super = *super;
        has_super = true;
      }
    });
    if (!has_super) found.super = assumed_super();
    conclude(found);
    return found;
  }

  // Ignores the meta pages: the root of the tree is the page from which the newest super record and most records can be
  // reached.
  Salvaged from_likely_root() {
    Salvaged best;
    for (PageNumber page = 2; page < pages_.count(); ++page) {
      if (!pages_.is_branch(page) && !pages_.is_leaf(page)) continue;
      std::set<PageNumber> seen;
      bool newest = false;
      pages_.walk(page, seen, [&](const LmdbNode& node) {
        const auto super = super_in(node);
        newest = newest || (super && super->checkpoint == newest_.checkpoint);
      });
      if (!newest) continue;
      Salvaged found = from_tree(page);
      if (found.whole) return found;
      if (found.records.size() > best.records.size()) best = std::move(found);
    }
    return best;
  }

  // Adds the records of leaves hidden by a damaged branch. Without the list of free pages, only if they make the result
  // whole.
  void add_hidden(Salvaged& found, const std::optional<std::set<PageNumber>>& free) const {
    Salvaged more = found;
    visit_leaves([&](PageNumber page, const LmdbNode& node) {
      if (reached_.contains(page) || (free && free->contains(page))) return;
      take(more, node);
      if (const auto super = super_in(node); super && super->checkpoint == newest_.checkpoint) more.super = *super;
    });
    conclude(more);
    if (free || more.whole) found = std::move(more);
  }

  // The super record is lost: assumes at least the values of the newest remaining one, plus a gap.
  SuperRecord assumed_super() const {
    SuperRecord super = newest_;
    super.checkpoint += 2;
    super.next_ino += kNumberGap;
    super.next_layer += kNumberGap;
    super.journal_first = 0;  // start from the oldest existing segment
    return super;
  }

  const LmdbPages pages_;
  Epochs epochs_;
  const SegmentNumber oldest_segment_;
  const RecordSeal* seal_ = nullptr;
  std::map<std::string, std::string> salts_;
  SuperRecord newest_;
  std::set<PageNumber> reached_;
};

Result<std::string> read_file(io::Storage& storage, const std::string& path) {
  RK_TRY_ASSIGN(const std::unique_ptr<io::File> file, storage.open(path, io::OpenMode::read));
  RK_TRY_ASSIGN(const std::uint64_t size, file->size());
  std::string bytes(size, '\0');
  RK_TRY_ASSIGN(const std::size_t got, file->read(0, {reinterpret_cast<std::byte*>(bytes.data()), bytes.size()}));
  bytes.resize(got);
  return bytes;
}

}  // namespace

Result<Salvaged> salvage(io::Storage& storage, const std::string& path, const crypto::Key& root, const Uuid& store) {
  RK_TRY_ASSIGN(const std::string bytes, read_file(storage, path));
  RK_TRY_ASSIGN(const std::vector<SegmentNumber> segments, Journal::list(storage));
  const SegmentNumber oldest = segments.empty() ? 1 : segments.front();
  RK_TRY_ASSIGN(Salvaged found, Salvager(LmdbPages(bytes), root, oldest).run(root, store));
  if (found.records.empty()) return fail(Errc::corrupt, "no record of the catalog can be read");
  if (found.super.journal_first == 0) found.super.journal_first = oldest;
  return found;
}

Status rebuild(const std::string& directory, const Salvaged& salvaged, const crypto::Key& root, const Uuid& store) {
  const Epochs epochs(root);
  RK_TRY_ASSIGN(const RecordSeal seal, RecordSeal::create(root, store, epochs));
  RK_TRY_ASSIGN(const LmdbEnvironment env, LmdbEnvironment::open(directory, LmdbEnvironment::Access::read_write));
  RK_TRY_ASSIGN(LmdbWriteTxn txn, LmdbWriteTxn::begin(env));
  SuperRecord super = salvaged.super;
  super.digest = {};
  for (const auto& [key, value] : salvaged.records) {
    seal.add(super.digest, key, value);
    RK_TRY(txn.put(key, value));
  }
  const std::string super_key = make_key(Table::super);
  RK_TRY_ASSIGN(const std::string sealed, seal.seal_by_root(super_key, super.encode()));
  RK_TRY(txn.put(super_key, sealed));
  return txn.commit();
}

}  // namespace rekeyfs::catalog
