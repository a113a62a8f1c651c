// LmdbPages: reads LMDB's file page by page without LMDB (layout: LMDB 0.9, mdb.c), so that damage cannot cause a wrong
// pointer to be followed. A view: the bytes must outlive it. Immutable.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string_view>
#include <vector>

#include "engine/base/bytes.h"
#include "engine/base/result.h"

namespace rekeyfs::catalog {

using PageNumber = std::uint64_t;

struct LmdbNode {
  std::size_t at = 0, size = 0;                 // offset in its page and length, in bytes
  std::uint16_t marks = 0;                      // flags of a leaf node
  std::string_view key, value;
  bool is_whole = true;                         // false: its pages contradict it, and the value is empty
  PageNumber child = 0;                         // in a branch
  PageNumber overflow = 0, overflow_pages = 0;  // pages of a long value; 0: the value is in the leaf itself
};

struct LmdbMeta {
  PageNumber free_root = 0, root = 0, last = 0;
  std::uint64_t transaction = 0;
};

class LmdbPages {
 public:
  explicit LmdbPages(std::string_view file) : bytes_(file) {}

  PageNumber count() const;
  bool is_branch(PageNumber page) const;
  bool is_leaf(PageNumber page) const;
  // The nodes of a branch or leaf page, in order; nullopt if the page is inconsistent.
  std::optional<std::vector<LmdbNode>> nodes(PageNumber page) const;
  // The meta page of the last commit; nullopt if one of the two is damaged, because the other may then be the older
  // one.
  std::optional<LmdbMeta> newest_meta() const;

  // Visits all reachable nodes of the tree and adds its pages to `used`. False if a part cannot be reached.
  using Visit = std::function<void(const LmdbNode&)>;
  bool walk(PageNumber root, std::set<PageNumber>& used, const Visit& visit) const {
    return walk_below(root, 0, used, visit);
  }
  // The pages that the next commits may overwrite; nullopt if they cannot be determined.
  std::optional<std::set<PageNumber>> free_pages(const LmdbMeta& meta) const;

  // Whether the next commit overwrites no page in use and its free pages exist. A walk over the records cannot detect
  // this.
  Status verify() const;

 private:
  template <typename T>
  T number(std::size_t at) const;
  std::uint16_t flags(PageNumber page) const;
  bool is(PageNumber page, std::uint16_t kind) const;
  std::optional<LmdbNode> node(PageNumber page, std::size_t at) const;
  bool could_be_changed(PageNumber page, std::vector<LmdbNode> nodes) const;
  bool take_overflow(const LmdbNode& node, std::set<PageNumber>& used) const;
  std::optional<LmdbMeta> meta_of(PageNumber page) const;
  bool walk_below(PageNumber page, unsigned depth, std::set<PageNumber>& used, const Visit& visit) const;

  const std::string_view bytes_;
};

}  // namespace rekeyfs::catalog
