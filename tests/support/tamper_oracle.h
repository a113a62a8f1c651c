// Oracle: whether what was seen of a damaged RichStore is what may be seen of it. For tests only.
#pragma once

#include <cstddef>
#include <cstdio>
#include <map>
#include <set>
#include <string>

#include "tests/support/rich_store.h"

namespace rekeyfs::test {

// What came of a attack, in memory that the child shares with its parent.
struct Outcome {
  enum Kind { none, refused, unharmed, earlier_state, with_errors };
  Kind kind = none;
  bool told = false;                     // by a check before
  char wrong[1500] = {};                 // what must not be
  std::size_t flipped = 0, noticed = 0;  // of bits in data files

  void complain(const std::string& text) {
    if (wrong[0] == '\0') std::snprintf(wrong, sizeof wrong, "%s", text.c_str());
  }
};

class Oracle {
 public:
  explicit Oracle(const RichStore& store);
  // Sets the outcome's kind, and complains of a state that the store never had, of bytes that a block never had, and of
  // an error where nothing was changed. `damaged`: layers whose files were changed.
  void judge(const Seen& seen, const std::set<std::uint64_t>& damaged, Outcome& out) const;

 private:
  void judge_content(const std::string& path, const SeenNode& node, Outcome& out) const;
  std::set<std::string> versions_of(const std::string& id, std::uint64_t block) const;
  bool reads_from(const std::string& id, const std::set<std::uint64_t>& damaged) const;

  const RichStore& store_;
  std::map<std::string, std::map<std::uint64_t, std::set<std::string>>> versions_;  // by image id and block
};

}  // namespace rekeyfs::test
