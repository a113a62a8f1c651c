#include "tools/mount_options.h"

#include <algorithm>
#include <array>
#include <vector>

namespace rekeyfs::tools {
namespace {

// What mount(8) and systemd hand on though it is meant for themselves, and what makes no difference here: the
// kernel mounts FUSE with nosuid and nodev, and access times follow the kernel's own rules.
constexpr std::array<std::string_view, 31> kIgnored{
    "defaults",   "auto",       "noauto",      "user",          "nouser",   "users",      "owner",    "group",
    "nofail",     "_netdev",    "suid",        "nosuid",        "dev",      "nodev",      "atime",    "noatime",
    "relatime",   "norelatime", "strictatime", "nostrictatime", "diratime", "nodiratime", "lazytime", "nolazytime",
    "async",      "sync",       "dirsync",     "silent",        "loud",     "mand",       "nomand"};
constexpr std::array<std::string_view, 5> kIgnoredPrefixes{"x-", "X-", "comment=", "uhelper=", "user="};

struct Switch {
  std::string_view name;
  bool MountOptionList::*member;
  bool value;
};
constexpr std::array kSwitches{
    Switch{"ro", &MountOptionList::read_only, true},
    Switch{"rw", &MountOptionList::read_only, false},
    Switch{"exec", &MountOptionList::no_exec, false},
    Switch{"noexec", &MountOptionList::no_exec, true},
    Switch{"allow_other", &MountOptionList::allow_other, true},
    Switch{"writeback_cache", &MountOptionList::writeback_cache, true},
};

struct Value {
  std::string_view name;
  std::optional<std::string> MountOptionList::*member;
};
constexpr std::array kValues{
    Value{"key_file", &MountOptionList::key_file},
    Value{"passphrase_file", &MountOptionList::passphrase_file},
    Value{"log", &MountOptionList::log},
};

constexpr std::string_view kKnown =
    "known are ro, rw, exec, noexec, allow_other, key_file=FILE, passphrase_file=FILE, writeback_cache, log=FILE";

std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> parts(1);
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size() && (text[i + 1] == ',' || text[i + 1] == '\\'))
      parts.back() += text[++i];
    else if (text[i] == ',')
      parts.emplace_back();
    else
      parts.back() += text[i];
  }
  std::erase(parts, "");
  return parts;
}

bool is_ignored(std::string_view option) {
  return std::find(kIgnored.begin(), kIgnored.end(), option) != kIgnored.end() ||
         std::any_of(kIgnoredPrefixes.begin(), kIgnoredPrefixes.end(),
                     [&](std::string_view prefix) { return option.starts_with(prefix); });
}

bool set_switch(MountOptionList& list, std::string_view option) {
  for (const Switch& row : kSwitches) {
    if (row.name != option) continue;
    list.*row.member = row.value;
    return true;
  }
  return false;
}

// True if `option` is one of ours that takes a value.
Outcome<bool> set_value(MountOptionList& list, std::string_view option) {
  std::string_view name = option.substr(0, option.find('='));
  for (const Value& row : kValues) {
    if (row.name != name) continue;
    std::string_view value = option.substr(std::min(option.size(), name.size() + 1));
    if (value.empty())
      return fail(ExitCode::usage,
                  "the mount option " + std::string(name) + " needs a file: " + std::string(name) + "=FILE");
    list.*row.member = std::string(value);
    return true;
  }
  return false;
}

}  // namespace

Outcome<MountOptionList> parse_mount_options(std::string_view text, UnknownOption unknown) {
  MountOptionList list;
  for (const std::string& option : split(text)) {
    if (set_switch(list, option)) continue;
    RK_TRY_ASSIGN(bool done, set_value(list, option));
    if (!done && !is_ignored(option) && unknown == UnknownOption::refuse)
      return fail(ExitCode::usage, "unknown mount option " + option + "; " + std::string(kKnown));
  }
  if (list.key_file && list.passphrase_file)
    return fail(ExitCode::usage,
                "key_file and passphrase_file exclude each other; a store is unlocked with one of them");
  return list;
}

}  // namespace rekeyfs::tools
