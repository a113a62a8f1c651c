#include "fs/authority.h"

#include <charconv>
#include <fstream>
#include <sstream>
#include <string>

#include <linux/capability.h>
#include <unistd.h>

namespace rekeyfs::fs {
namespace {

Caller ordinary_caller_of(fuse_req_t req) {
  const fuse_ctx* context = fuse_req_ctx(req);
  return {.uid = context->uid, .gid = context->gid};
}

bool is_operators_id(uid_t uid) { return uid == 0 || uid == ::geteuid(); }

std::vector<gid_t> groups_in(const std::string& text) {
  std::istringstream in(text);
  std::vector<gid_t> groups;
  for (gid_t group = 0; in >> group;) groups.push_back(group);
  return groups;
}

std::uint64_t set_in(std::string_view hex) {
  std::uint64_t set = 0;
  const std::size_t start = hex.find_first_not_of(" \t");
  if (start != hex.npos) std::from_chars(hex.data() + start, hex.data() + hex.size(), set, 16);
  return set;
}

}  // namespace

Caller caller_of(fuse_req_t req) {
  Caller caller = ordinary_caller_of(req);
  caller.is_operator = is_operators_id(caller.uid);
  return caller;
}

Caller privileged_caller_of(fuse_req_t req) {
  Caller caller = caller_of(req);
  if (caller.uid != 0) return caller;
  const std::uint64_t capabilities = credentials_of(fuse_req_ctx(req)->pid).capabilities;
  caller.is_operator = (capabilities >> CAP_SYS_ADMIN & 1) != 0;
  return caller;
}

Caller commander_of(fuse_req_t req, Ino through) {
  Caller caller = ordinary_caller_of(req);
  caller.is_operator = through == kRootIno && is_operators_id(caller.uid);
  return caller;
}

Credentials credentials_of(pid_t thread) {
  static constexpr std::string_view kGroups = "Groups:", kCapabilities = "CapEff:";
  Credentials found;
  std::ifstream status("/proc/" + std::to_string(thread) + "/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(kGroups)) found.groups = groups_in(line.substr(kGroups.size()));
    if (line.starts_with(kCapabilities)) found.capabilities = set_in(std::string_view(line).substr(kCapabilities.size()));
  }
  return found;
}

}  // namespace rekeyfs::fs
