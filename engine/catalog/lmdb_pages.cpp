#include "engine/catalog/lmdb_pages.h"

#include <algorithm>
#include <utility>

namespace rekeyfs::catalog {
namespace {

constexpr std::size_t kPageSize = 4096, kHeader = 16, kNodeHeader = 8;
constexpr std::uint16_t kBranch = 1, kLeaf = 2, kOverflow = 4;
constexpr std::uint16_t kBigData = 1;  // node flag: the value is on overflow pages
constexpr std::uint32_t kMetaMagic = 0xbeefc0de, kMetaVersion = 1;
constexpr std::uint16_t kFreeFlags = 8, kMainFlags = 0;  // flags of the two databases: integer keys, byte string keys
constexpr PageNumber kNoPage = ~PageNumber{0};
constexpr unsigned kDeepest = 16;

}  // namespace

PageNumber LmdbPages::count() const {
  return bytes_.size() / kPageSize;
}

template <typename T>
T LmdbPages::number(std::size_t at) const {
  return at + sizeof(T) <= bytes_.size() ? Reader(bytes_.substr(at, sizeof(T))).get<T>() : T{};
}

std::uint16_t LmdbPages::flags(PageNumber page) const {
  return number<std::uint16_t>(page * kPageSize + 10);
}
bool LmdbPages::is(PageNumber page, std::uint16_t kind) const {
  return page >= 2 && page < count() && number<std::uint64_t>(page * kPageSize) == page && (flags(page) & 0xf) == kind;
}
bool LmdbPages::is_branch(PageNumber page) const {
  return is(page, kBranch);
}
bool LmdbPages::is_leaf(PageNumber page) const {
  return is(page, kLeaf);
}

std::optional<std::vector<LmdbNode>> LmdbPages::nodes(PageNumber page) const {
  const std::size_t start = page * kPageSize;
  const std::size_t lower = number<std::uint16_t>(start + 12), upper = number<std::uint16_t>(start + 14);
  if (lower < kHeader || lower > upper || upper > kPageSize) return std::nullopt;
  std::vector<LmdbNode> nodes;
  for (std::size_t at = kHeader; at + 2 <= lower; at += 2) {
    const std::optional<LmdbNode> one = node(page, number<std::uint16_t>(start + at));
    if (!one) return std::nullopt;
    nodes.push_back(*one);
  }
  return nodes;
}

std::optional<LmdbNode> LmdbPages::node(PageNumber page, std::size_t at) const {
  if (at < kHeader || at + kNodeHeader > kPageSize) return std::nullopt;
  const std::size_t start = page * kPageSize + at;
  const std::uint64_t low = number<std::uint16_t>(start), high = number<std::uint16_t>(start + 2);
  const auto marks = number<std::uint16_t>(start + 4);
  const std::size_t key_size = number<std::uint16_t>(start + 6);
  if (at + kNodeHeader + key_size > kPageSize) return std::nullopt;
  LmdbNode found;
  found.at = at;
  found.size = kNodeHeader + key_size;
  found.key = bytes_.substr(start + kNodeHeader, key_size);
  if (flags(page) & kBranch) {
    found.child = low | high << 16 | std::uint64_t{marks} << 32;
    return found;
  }
  const std::size_t size = low | high << 16, value = start + kNodeHeader + key_size;
  found.marks = marks;
  found.size += marks & kBigData ? sizeof(PageNumber) : size;
  if (!(marks & kBigData)) {
    if (value + size > (page + 1) * kPageSize) return std::nullopt;
    found.value = bytes_.substr(value, size);
    return found;
  }
  found.overflow = number<std::uint64_t>(value);
  found.overflow_pages = (kHeader + size + kPageSize - 1) / kPageSize;
  found.is_whole = is(found.overflow, kOverflow) && size <= bytes_.size() - found.overflow * kPageSize - kHeader;
  if (found.is_whole) found.value = bytes_.substr(found.overflow * kPageSize + kHeader, size);
  return found;
}

// Whether LMDB can modify the page safely: its nodes are contiguous from where LMDB expects the first one to the end of
// the page, because LMDB moves them; and no node has a flag that makes LMDB treat its value as another kind when it
// changes it.
bool LmdbPages::could_be_changed(PageNumber page, std::vector<LmdbNode> nodes) const {
  std::sort(nodes.begin(), nodes.end(), [](const LmdbNode& one, const LmdbNode& other) { return one.at < other.at; });
  std::size_t end = number<std::uint16_t>(page * kPageSize + 14);
  for (const LmdbNode& one : nodes) {
    if (one.at != end || (one.marks & ~kBigData) != 0) return false;
    end += one.size + one.size % 2;
  }
  return end == kPageSize;
}

// Adds as many overflow pages as the page says it has: LMDB frees that many, and a shorter value may have replaced a
// longer one.
bool LmdbPages::take_overflow(const LmdbNode& node, std::set<PageNumber>& used) const {
  if (node.overflow_pages == 0) return true;
  if (!node.is_whole) return false;
  const PageNumber pages = number<std::uint32_t>(node.overflow * kPageSize + 12);
  if (pages < node.overflow_pages || pages > count() - node.overflow) return false;
  bool whole = true;
  for (PageNumber i = 0; i < pages; ++i) whole = used.insert(node.overflow + i).second && whole;
  return whole;
}

std::optional<LmdbMeta> LmdbPages::meta_of(PageNumber page) const {
  const std::size_t at = page * kPageSize + kHeader;
  const bool sound = number<std::uint32_t>(at) == kMetaMagic && number<std::uint32_t>(at + 4) == kMetaVersion &&
                     number<std::uint32_t>(at + 24) == kPageSize && number<std::uint16_t>(at + 28) == kFreeFlags &&
                     number<std::uint16_t>(at + 76) == kMainFlags;
  if (!sound) return std::nullopt;
  return LmdbMeta{number<std::uint64_t>(at + 64), number<std::uint64_t>(at + 112), number<std::uint64_t>(at + 120),
                  number<std::uint64_t>(at + 128)};
}

std::optional<LmdbMeta> LmdbPages::newest_meta() const {
  const std::optional<LmdbMeta> first = meta_of(0), second = meta_of(1);
  if (!first || !second) return std::nullopt;
  return first->transaction > second->transaction ? first : second;
}

bool LmdbPages::walk_below(PageNumber page, unsigned depth, std::set<PageNumber>& used, const Visit& visit) const {
  const bool leaf = is_leaf(page);
  if (depth > kDeepest || (!leaf && !is_branch(page)) || !used.insert(page).second) return false;
  const auto found = nodes(page);
  if (!found) return false;
  // LMDB would misread it otherwise.
  bool whole = flags(page) == (leaf ? kLeaf : kBranch) && could_be_changed(page, *found);
  for (const LmdbNode& one : *found) {
    whole = (leaf ? take_overflow(one, used) : walk_below(one.child, depth + 1, used, visit)) && whole;
    if (leaf) visit(one);
  }
  return whole;
}

// The free list has one record per commit, in order: the number of pages that it freed, and their numbers, descending.
std::optional<std::set<PageNumber>> LmdbPages::free_pages(const LmdbMeta& meta) const {
  std::set<PageNumber> free, used;
  if (meta.free_root == kNoPage) return free;
  bool sound = true;
  std::uint64_t last_commit = 0;
  const bool whole = walk(meta.free_root, used, [&](const LmdbNode& node) {
    const auto commit = Reader(node.key).get<std::uint64_t>();
    sound = sound && node.key.size() == sizeof commit && std::exchange(last_commit, commit) < commit;
    Reader in(node.value);
    PageNumber before = kNoPage;
    for (std::uint64_t left = in.get<std::uint64_t>(); left > 0 && sound; --left) {
      const PageNumber page = in.get<std::uint64_t>();
      sound = in.ok() && page < before && free.insert(page).second;
      before = page;
    }
    sound = sound && in.ok() && in.left() == 0;
  });
  return whole && sound ? std::optional(std::move(free)) : std::nullopt;
}

Status LmdbPages::verify() const {
  const std::optional<LmdbMeta> meta = newest_meta();
  if (!meta) return fail(Errc::corrupt, "a meta page of catalog/data.mdb is damaged");
  std::set<PageNumber> used;
  const auto nothing = [](const LmdbNode&) {};
  const bool whole = (meta->root == kNoPage || walk(meta->root, used, nothing)) &&
                     (meta->free_root == kNoPage || walk(meta->free_root, used, nothing));
  if (!whole) return fail(Errc::corrupt, "pages of catalog/data.mdb overlap or are malformed");
  const auto free = free_pages(*meta);
  const auto is_below_last = [&](PageNumber page) { return page >= 2 && page <= meta->last; };
  const bool sound = free && std::all_of(used.begin(), used.end(), is_below_last) &&
                     std::all_of(free->begin(), free->end(),
                                 [&](PageNumber page) { return is_below_last(page) && !used.contains(page); });
  if (!sound) return fail(Errc::corrupt, "the list of free pages in catalog/data.mdb is damaged");
  // A page at the end that was freed before it was written is free.
  for (PageNumber page = count(); page <= meta->last; ++page)
    if (!free->contains(page)) return fail(Errc::corrupt, "catalog/data.mdb is truncated");
  return {};
}

}  // namespace rekeyfs::catalog
