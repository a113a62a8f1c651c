#include "tools/mount_options.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <system_error>
#include <vector>

namespace rekeyfs::tools {
namespace {

// Options that mount(8) and systemd pass on although they handle them, and options without effect here: the kernel
// mounts FUSE with nosuid and nodev, and access times follow the kernel's rules.
constexpr std::array<std::string_view, 31> kIgnored{
    "defaults",   "auto",       "noauto",      "user",          "nouser",   "users",      "owner",    "group",
    "nofail",     "_netdev",    "suid",        "nosuid",        "dev",      "nodev",      "atime",    "noatime",
    "relatime",   "norelatime", "strictatime", "nostrictatime", "diratime", "nodiratime", "lazytime", "nolazytime",
    "async",      "sync",       "dirsync",     "silent",        "loud",     "mand",       "nomand"};
constexpr std::array<std::string_view, 5> kIgnoredPrefixes{"x-", "X-", "comment=", "uhelper=", "user="};

constexpr std::uint64_t kMaxIdleSeconds = 24 * 3600;
constexpr std::uint64_t kMaxUserKeys = 1000;

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
    "known are ro, rw, exec, noexec, allow_other, key_file=FILE, passphrase_file=FILE, writeback_cache, hot=SIZE, "
    "hot_idle=SECONDS, user_keys=NUMBER, log=FILE";

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

// True if `option` is one of our options with a value.
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

// Parses a number with an optional letter from `units`; each letter multiplies by 1024 relative to the previous one.
std::optional<std::uint64_t> number(std::string_view text, std::string_view units) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || value == 0) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  if (text.empty()) return value;
  const std::size_t unit = units.find(text);
  const std::size_t shift = 10 * (unit + 1);
  if (text.size() != 1 || unit == units.npos || value > (std::uint64_t{1} << (63 - shift))) return std::nullopt;
  return value << shift;
}

// True if `option` concerns hot images.
Outcome<bool> set_hot(MountOptionList& list, std::string_view option) {
  const std::size_t equals = std::min(option.find('='), option.size());
  const std::string_view name = option.substr(0, equals), value = option.substr(std::min(option.size(), equals + 1));
  if (name == "hot") {
    const auto bytes = number(value, "KMGT");
    if (!bytes) return fail(ExitCode::usage, "the mount option hot needs a size: hot=512M or hot=2G");
    list.hot_memory = *bytes;
    return true;
  }
  if (name != "hot_idle") return false;
  const auto seconds = number(value, "");
  if (!seconds || *seconds > kMaxIdleSeconds)
    return fail(ExitCode::usage, "the mount option hot_idle needs seconds, at most 86400: hot_idle=60");
  list.hot_idle = std::chrono::seconds(*seconds);
  return true;
}

// True if `option` is user_keys.
Outcome<bool> set_user_keys(MountOptionList& list, std::string_view option) {
  constexpr std::string_view kName = "user_keys";
  if (option.substr(0, option.find('=')) != kName) return false;
  const std::string_view value = option.substr(std::min(option.size(), kName.size() + 1));
  const auto keys = value == "0" ? 0 : number(value, "");
  if (!keys || *keys > kMaxUserKeys)
    return fail(ExitCode::usage, "the mount option user_keys needs a number, at most 1000: user_keys=3");
  list.user_keys = static_cast<unsigned>(*keys);
  return true;
}

}  // namespace

Outcome<MountOptionList> parse_mount_options(std::string_view text, UnknownOption unknown) {
  MountOptionList list;
  for (const std::string& option : split(text)) {
    if (set_switch(list, option)) continue;
    RK_TRY_ASSIGN(bool done, set_value(list, option));
    if (!done) {
      RK_TRY_ASSIGN(done, set_hot(list, option));
    }
    if (!done) {
      RK_TRY_ASSIGN(done, set_user_keys(list, option));
    }
    if (!done && !is_ignored(option) && unknown == UnknownOption::refuse)
      return fail(ExitCode::usage, "unknown mount option " + option + "; " + std::string(kKnown));
  }
  if (list.key_file && list.passphrase_file)
    return fail(ExitCode::usage,
                "the mount options key_file and passphrase_file exclude each other; give one of them");
  if (list.hot_memory > 0 && list.writeback_cache)
    return fail(ExitCode::usage,
                "the mount options hot and writeback_cache exclude each other; the kernel has no passthrough with writeback_cache");
  return list;
}

}  // namespace rekeyfs::tools
