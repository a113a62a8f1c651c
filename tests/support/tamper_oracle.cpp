#include "tests/support/tamper_oracle.h"

#include <algorithm>

namespace rekeyfs::test {
namespace {

// Why `seen` differs from `expected`; empty if it does not. Ignores contents and nodes that could not be examined.
std::string difference(const Seen& seen, const Seen& expected) {
  for (const auto& [path, node] : expected)
    if (!seen.contains(path)) return "/" + path + " is missing";
  for (const auto& [path, node] : seen) {
    const auto found = expected.find(path);
    if (found == expected.end()) return "/" + path + " should not be there";
    const SeenNode& right = found->second;
    if (!node.error.empty()) continue;
    if (node.kind != right.kind || node.permissions != right.permissions || node.target != right.target ||
        node.id != right.id)
      return "/" + path + " is another node";
    if (node.encryption != right.encryption || node.key != right.key)
      return "/" + path + " is encrypted with \"" + node.key + "\", not with \"" + right.key + "\"";
    if (node.attributes != right.attributes) return "/" + path + " has other attributes";
    if (node.size != right.size)
      return "/" + path + " has " + std::to_string(node.size) + " bytes, not " + std::to_string(right.size);
  }
  return {};
}

}  // namespace

Oracle::Oracle(const RichStore& store) : store_(store) {
  for (const Seen& state : store.states())
    for (const auto& [path, node] : state)
      for (std::uint64_t block = 0; block * kRichBlock < node.content.size(); ++block)
        versions_[node.id][block].insert(node.content.substr(block * kRichBlock, kRichBlock));
}

void Oracle::judge(const Seen& seen, const std::set<std::uint64_t>& damaged, Outcome& out) const {
  const std::vector<Seen>& states = store_.states();
  std::size_t state = states.size();
  std::string why;
  for (std::size_t i = states.size(); i-- > 0 && state == states.size();) {
    const std::string other = difference(seen, states[i]);
    if (other.empty())
      state = i;
    else if (why.empty())
      why = other;
  }
  if (state == states.size()) return out.complain("a state that never was: " + why);
  bool errors = false, right = true;
  for (const auto& [path, node] : seen) {
    if (!node.wrong_error.empty()) out.complain("/" + path + ": " + node.wrong_error);
    judge_content(path, node, out);
    const bool failed = !node.error.empty() || !node.unreadable.empty();
    if (failed && !reads_from(node.id, damaged))
      out.complain("/" + path + " is an error, though nothing of it was changed");
    errors = errors || failed;
    right = right && node.content == states.back().at(states.back().contains(path) ? path : "").content;
  }
  out.kind = errors                                ? Outcome::with_errors
             : state + 1 == states.size() && right ? Outcome::unharmed
                                                   : Outcome::earlier_state;
}

// Within the content, each block must be one that the image had there since the last checkpoint.
void Oracle::judge_content(const std::string& path, const SeenNode& node, Outcome& out) const {
  if (node.kind != NodeKind::image || !node.error.empty()) return;
  for (std::uint64_t block = 0; block * kRichBlock < node.content.size(); ++block) {
    if (node.unreadable.contains(block)) continue;
    const std::string got = node.content.substr(block * kRichBlock, kRichBlock);
    const std::set<std::string> versions = versions_of(node.id, block);
    const bool known = std::any_of(versions.begin(), versions.end(), [&](std::string version) {
      version.resize(got.size(), '\0');
      return version == got;
    });
    if (!known) out.complain("/" + path + ": block " + std::to_string(block) + " has bytes that it never had");
  }
}

std::set<std::string> Oracle::versions_of(const std::string& id, std::uint64_t block) const {
  const auto image = versions_.find(id);
  if (image == versions_.end()) return {};
  const auto found = image->second.find(block);
  return found == image->second.end() ? std::set<std::string>{} : found->second;
}

bool Oracle::reads_from(const std::string& id, const std::set<std::uint64_t>& damaged) const {
  const auto layers = store_.layers().find(id);
  return layers != store_.layers().end() && std::any_of(layers->second.begin(), layers->second.end(),
                                                        [&](std::uint64_t layer) { return damaged.contains(layer); });
}

}  // namespace rekeyfs::test
