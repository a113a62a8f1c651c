// LmdbPages: LMDB's file read page by page, without LMDB (layout: LMDB 0.9, mdb.c), so that no damage makes anybody
// follow a wrong pointer. A view: the bytes outlive it. Immutable.
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
  std::size_t at = 0, size = 0;                 // where it begins in its page, and its bytes there
  std::uint16_t marks = 0;                      // of a leaf's
  std::string_view key, value;
  bool is_whole = true;                         // else its pages contradict it, and the value is empty
  PageNumber child = 0;                         // of a branch
  PageNumber overflow = 0, overflow_pages = 0;  // where a long value lies; 0: on the leaf itself
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
  // The nodes of a branch or a leaf, in order; nothing if the page contradicts itself.
  std::optional<std::vector<LmdbNode>> nodes(PageNumber page) const;
  // Of the last commit; nothing if one of the two is damaged, for then nobody knows which it is.
  std::optional<LmdbMeta> newest_meta() const;

  // All of the tree that can be reached; false if any of it cannot. `used` gets its pages.
  using Visit = std::function<void(const LmdbNode&)>;
  bool walk(PageNumber root, std::set<PageNumber>& used, const Visit& visit) const {
    return walk_below(root, 0, used, visit);
  }
  // The pages that the next commits may overwrite; nothing if that cannot be told.
  std::optional<std::set<PageNumber>> free_pages(const LmdbMeta& meta) const;

  // That the next commit overwrites nothing that is in use, and finds room where it looks for it: what a walk over the
  // records cannot tell.
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
