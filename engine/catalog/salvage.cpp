#include "engine/catalog/salvage.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <optional>
#include <set>
#include <vector>

#include "engine/catalog/journal.h"
#include "engine/catalog/lmdb.h"
#include "engine/catalog/tables.h"

namespace rekeyfs::catalog {
namespace {

constexpr std::size_t kPageSize = 4096, kHeader = 16, kNodeHeader = 8;
constexpr std::uint16_t kBranch = 1, kLeaf = 2, kOverflow = 4;
constexpr std::uint16_t kBigData = 1;  // of a node: its value is on overflow pages
constexpr std::uint32_t kMetaMagic = 0xbeefc0de;
constexpr unsigned kDeepest = 16;
constexpr std::uint64_t kNumberGap = std::uint64_t{1} << 32;  // where the last number given out is not known

using PageNumber = std::uint64_t;

struct Node {
  std::string_view key, value;
  PageNumber child = 0;
};

class Pages {
 public:
  explicit Pages(std::string bytes) : bytes_(std::move(bytes)) {}
  PageNumber count() const { return bytes_.size() / kPageSize; }

  template <typename T>
  T number(std::size_t at) const {
    return at + sizeof(T) <= bytes_.size() ? Reader(std::string_view(bytes_).substr(at, sizeof(T))).get<T>() : T{};
  }
  std::uint16_t flags(PageNumber page) const { return number<std::uint16_t>(page * kPageSize + 10); }
  bool is(PageNumber page, std::uint16_t kind) const {
    return page >= 2 && page < count() && number<std::uint64_t>(page * kPageSize) == page && (flags(page) & 0xf) == kind;
  }

  // The nodes of a branch or a leaf, in order; nothing if the page contradicts itself.
  std::optional<std::vector<Node>> nodes(PageNumber page) const {
    const std::size_t start = page * kPageSize;
    const std::size_t lower = number<std::uint16_t>(start + 12), upper = number<std::uint16_t>(start + 14);
    if (lower < kHeader || lower > upper || upper > kPageSize) return std::nullopt;
    std::vector<Node> nodes;
    for (std::size_t at = kHeader; at + 2 <= lower; at += 2) {
      const std::optional<Node> one = node(page, number<std::uint16_t>(start + at));
      if (!one) return std::nullopt;
      nodes.push_back(*one);
    }
    return nodes;
  }

 private:
  std::optional<Node> node(PageNumber page, std::size_t at) const {
    if (at < kHeader || at + kNodeHeader > kPageSize) return std::nullopt;
    const std::size_t start = page * kPageSize + at;
    const std::uint64_t low = number<std::uint16_t>(start), high = number<std::uint16_t>(start + 2);
    const std::uint64_t marks = number<std::uint16_t>(start + 4);
    const std::size_t key_size = number<std::uint16_t>(start + 6);
    if (at + kNodeHeader + key_size > kPageSize) return std::nullopt;
    const std::string_view all(bytes_);
    Node found;
    found.key = all.substr(start + kNodeHeader, key_size);
    if (flags(page) & kBranch) {
      found.child = low | high << 16 | marks << 32;
      return found;
    }
    const std::size_t size = low | high << 16, value = start + kNodeHeader + key_size;
    if (!(marks & kBigData)) {
      if (value + size > (page + 1) * kPageSize) return std::nullopt;
      found.value = all.substr(value, size);
      return found;
    }
    const PageNumber over = number<std::uint64_t>(value);
    if (!is(over, kOverflow) || size > bytes_.size() - over * kPageSize - kHeader) return found;  // its value is lost
    found.value = all.substr(over * kPageSize + kHeader, size);
    return found;
  }

  std::string bytes_;
};

struct Meta {
  PageNumber free_root = 0, root = 0, last = 0;
  std::uint64_t transaction = 0;
};

std::optional<Meta> meta_of(const Pages& pages, PageNumber page) {
  const std::size_t at = page * kPageSize + kHeader;
  if (pages.number<std::uint32_t>(at) != kMetaMagic || pages.number<std::uint32_t>(at + 24) != kPageSize) return std::nullopt;
  return Meta{pages.number<std::uint64_t>(at + 64), pages.number<std::uint64_t>(at + 112), pages.number<std::uint64_t>(at + 120),
              pages.number<std::uint64_t>(at + 128)};
}

using Visit = std::function<void(const Node&)>;

// All of the tree that can be reached; false if any of it cannot.
bool walk(const Pages& pages, PageNumber page, unsigned depth, std::set<PageNumber>& seen, const Visit& visit) {
  const bool leaf = pages.is(page, kLeaf);
  if (depth > kDeepest || (!leaf && !pages.is(page, kBranch)) || !seen.insert(page).second) return false;
  const auto nodes = pages.nodes(page);
  if (!nodes) return false;
  bool whole = true;
  for (const Node& node : *nodes) {
    if (leaf) visit(node);
    else whole = walk(pages, node.child, depth + 1, seen, visit) && whole;
  }
  return whole;
}

// The pages that the next commits may overwrite; nothing if that cannot be told.
std::optional<std::set<PageNumber>> free_pages(const Pages& pages, PageNumber root) {
  std::set<PageNumber> free, seen;
  if (root == ~PageNumber{0}) return free;
  const bool whole = walk(pages, root, 0, seen, [&](const Node& node) {
    Reader in(node.value);
    for (std::uint64_t left = in.get<std::uint64_t>(); left > 0 && in.ok(); --left) free.insert(in.get<std::uint64_t>());
  });
  return whole ? std::optional(std::move(free)) : std::nullopt;
}

class Salvager {
 public:
  Salvager(Pages pages, const crypto::Key& root, SegmentNumber oldest_segment)
      : pages_(std::move(pages)), epochs_(root), oldest_segment_(oldest_segment) {}

  Result<Salvaged> run(const crypto::Key& root, const Uuid& store) {
    RK_TRY_ASSIGN(RecordSeal seal, RecordSeal::create(root, store, epochs_));
    seal_ = &seal;
    load_epochs();
    find_newest_super();
    const std::optional<Meta> first = meta_of(pages_, 0), second = meta_of(pages_, 1);
    const Salvaged likely = from_likely_root();
    if (likely.whole || !first || !second) return likely;
    const Meta& meta = first->transaction > second->transaction ? *first : *second;
    Salvaged found = from_tree(meta.root);
    add_hidden(found, free_pages(pages_, meta.free_root));
    return found;
  }

 private:
  void visit_leaves(const std::function<void(PageNumber, const Node&)>& visit) const {
    for (PageNumber page = 2; page < pages_.count(); ++page) {
      if (!pages_.is(page, kLeaf)) continue;
      if (const auto nodes = pages_.nodes(page))
        for (const Node& node : *nodes) visit(page, node);
    }
  }

  // Salts never change and are never removed: one that opens is right, wherever it lies.
  void load_epochs() {
    visit_leaves([&](PageNumber, const Node& node) {
      if (node.key.size() != 9 || node.key[0] != static_cast<char>(Table::epoch)) return;
      const auto value = seal_->open_by_root(node.key, node.value);
      if (!value || value->size() != sizeof(Salt)) return;
      Salt salt;
      std::memcpy(salt.data(), value->data(), salt.size());
      epochs_.add(EpochId{static_cast<std::uint32_t>(Reader(node.key.substr(1)).get_be64())}, salt);
      salts_.insert_or_assign(std::string(node.key), std::string(node.value));
    });
  }

  std::optional<SuperRecord> super_in(const Node& node) const {
    if (node.key != make_key(Table::super)) return std::nullopt;
    const auto bytes = seal_->open(node.key, node.value);
    const auto super = bytes ? SuperRecord::decode(*bytes) : fail(Errc::corrupt);
    return super ? std::optional(*super) : std::nullopt;
  }

  void find_newest_super() {
    visit_leaves([&](PageNumber, const Node& node) {
      const auto super = super_in(node);
      if (super && super->checkpoint >= newest_.checkpoint) newest_ = *super;
    });
  }

  void take(Salvaged& into, const Node& node) const {
    if (!node.key.empty() && node.key != make_key(Table::super) && seal_->open(node.key, node.value))
      into.records.emplace(node.key, node.value);
  }

  void conclude(Salvaged& found) const {
    for (const auto& [key, value] : salts_) found.records.emplace(key, value);
    RecordSeal::MultisetDigest digest{};
    for (const auto& [key, value] : found.records) seal_->add(digest, key, value);
    // An older checkpoint's tree may still be there as a whole; the journal that went on from it is not.
    found.whole = digest == found.super.digest && found.super.checkpoint == newest_.checkpoint &&
                  found.super.journal_first >= oldest_segment_;
  }

  Salvaged from_tree(PageNumber root) {
    Salvaged found;
    reached_.clear();
    bool has_super = false;
    walk(pages_, root, 0, reached_, [&](const Node& node) {
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

  // Whatever the first pages say: the tree begins at the page from which the newest super record, and most records, are
  // reached.
  Salvaged from_likely_root() {
    Salvaged best;
    for (PageNumber page = 2; page < pages_.count(); ++page) {
      if (!pages_.is(page, kBranch) && !pages_.is(page, kLeaf)) continue;
      std::set<PageNumber> seen;
      bool newest = false;
      walk(pages_, page, 0, seen, [&](const Node& node) {
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

  // The records of leaves that a damaged branch hides. Without the list of free pages, only if they make it whole.
  void add_hidden(Salvaged& found, const std::optional<std::set<PageNumber>>& free) const {
    Salvaged more = found;
    visit_leaves([&](PageNumber page, const Node& node) {
      if (reached_.contains(page) || (free && free->contains(page))) return;
      take(more, node);
      if (const auto super = super_in(node); super && super->checkpoint == newest_.checkpoint) more.super = *super;
    });
    conclude(more);
    if (free || more.whole) found = std::move(more);
  }

  // The super record is lost: at least what the last one that is left says, and more.
  SuperRecord assumed_super() const {
    SuperRecord super = newest_;
    super.checkpoint += 2;
    super.next_ino += kNumberGap;
    super.next_layer += kNumberGap;
    super.journal_first = 0;  // the oldest there is
    return super;
  }

  const Pages pages_;
  Epochs epochs_;
  const SegmentNumber oldest_segment_;
  const RecordSeal* seal_ = nullptr;
  std::map<std::string, std::string> salts_;
  SuperRecord newest_;
  std::set<PageNumber> reached_;
};

Result<SegmentNumber> oldest_segment(io::Storage& storage) {
  RK_TRY_ASSIGN(const std::vector<std::string> names, storage.list("journal"));
  std::optional<SegmentNumber> oldest;
  for (const std::string& name : names) {
    SegmentNumber number = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number, 16);
    if (error == std::errc{} && end == name.data() + name.size()) oldest = std::min(oldest.value_or(number), number);
  }
  return oldest.value_or(1);
}

Result<Pages> read_pages(io::Storage& storage, const std::string& path) {
  RK_TRY_ASSIGN(const std::unique_ptr<io::File> file, storage.open(path, io::OpenMode::read));
  RK_TRY_ASSIGN(const std::uint64_t size, file->size());
  std::string bytes(size, '\0');
  RK_TRY(file->read(0, {reinterpret_cast<std::byte*>(bytes.data()), bytes.size()}));
  return Pages(std::move(bytes));
}

}  // namespace

Status verify_free_list(io::Storage& storage, const std::string& path) {
  RK_TRY_ASSIGN(const Pages pages, read_pages(storage, path));
  const std::optional<Meta> first = meta_of(pages, 0), second = meta_of(pages, 1);
  if (!first || !second) return fail(Errc::corrupt, "one of its first pages is damaged");
  const Meta& meta = first->transaction > second->transaction ? *first : *second;
  std::set<PageNumber> used;
  const bool whole = walk(pages, meta.root, 0, used, [](const Node&) {});
  const auto free = free_pages(pages, meta.free_root);
  const bool sound = whole && free && std::all_of(free->begin(), free->end(), [&](PageNumber page) {
    return page >= 2 && page <= meta.last && !used.contains(page);
  });
  if (!sound) return fail(Errc::corrupt, "its list of free pages is damaged");
  return {};
}

Result<Salvaged> salvage(io::Storage& storage, const std::string& path, const crypto::Key& root, const Uuid& store) {
  RK_TRY_ASSIGN(Pages pages, read_pages(storage, path));
  RK_TRY_ASSIGN(const SegmentNumber oldest, oldest_segment(storage));
  RK_TRY_ASSIGN(Salvaged found, Salvager(std::move(pages), root, oldest).run(root, store));
  if (found.records.empty()) return fail(Errc::corrupt, "none of its records can be read");
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
