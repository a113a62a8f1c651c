// Oracle: decides whether the state seen of a damaged RichStore is acceptable. For tests only.
#pragma once

#include <cstddef>
#include <cstdio>
#include <map>
#include <set>
#include <string>

#include "tests/support/rich_store.h"

namespace rekeyfs::test {

// The outcome of an attack, in memory shared between child and parent.
struct Outcome {
  enum Kind { none, refused, unharmed, earlier_state, with_errors };
  Kind kind = none;
  bool told = false;                     // detected by a check before
  char wrong[1500] = {};                 // description of a violation
  std::size_t flipped = 0, noticed = 0;  // number of bits flipped in data files, and number detected

  void complain(const std::string& text) {
    if (wrong[0] == '\0') std::snprintf(wrong, sizeof wrong, "%s", text.c_str());
  }
};

class Oracle {
 public:
  explicit Oracle(const RichStore& store);
  // Sets the outcome's kind. Reports a state that the store never had, bytes that a block never had, and an error in an
  // unchanged part. `damaged`: layers whose files were changed.
  void judge(const Seen& seen, const std::set<std::uint64_t>& damaged, Outcome& out) const;

 private:
  void judge_content(const std::string& path, const SeenNode& node, Outcome& out) const;
  std::set<std::string> versions_of(const std::string& id, std::uint64_t block) const;
  bool reads_from(const std::string& id, const std::set<std::uint64_t>& damaged) const;

  const RichStore& store_;
  std::map<std::string, std::map<std::uint64_t, std::set<std::string>>> versions_;  // key: image id, block
};

}  // namespace rekeyfs::test
