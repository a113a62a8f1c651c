#include "fs/commands/replication_page.h"

#include <algorithm>
#include <utility>

namespace rekeyfs::fs {
namespace {

constexpr std::size_t kOther = 400;  // bytes of the members that are not chosen by users

std::size_t text_bytes(const Replication& one) {
  return kOther + one.path.size() + one.source.size() + one.error.size();
}

}  // namespace

ReplicationPage page_after(std::vector<Replication> all, Ino after) {
  ReplicationPage page;
  std::erase_if(all, [&](const Replication& one) { return one.ino <= after; });
  std::ranges::sort(all, {}, &Replication::ino);
  std::size_t bytes = 0;
  for (Replication& one : all) {
    bytes += text_bytes(one);
    if (bytes > ReplicationPage::kMaxTextBytes && !page.replications.empty()) {
      page.next = page.replications.back().ino;
      break;
    }
    page.replications.push_back(std::move(one));
  }
  return page;
}

}  // namespace rekeyfs::fs
