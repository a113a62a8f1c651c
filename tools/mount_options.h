// MountOptionList: parses the comma-separated list after -o of mount(8), fstab and `rekeyfs mount`.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "tools/outcome.h"

namespace rekeyfs::tools {

struct MountOptionList {
  bool read_only = false;
  bool allow_other = false;
  bool no_exec = false;
  bool writeback_cache = false;
  std::uint64_t hot_memory = 0;  // bytes; 0: no hot images
  std::chrono::seconds hot_idle{60};
  unsigned user_keys = 0;
  std::optional<std::string> key_file, passphrase_file, log;
};

enum class UnknownOption { refuse, ignore };  // mount(8) -s: ignore

// "\," is a comma in a value. Accepts and ignores general options of mount(8) and fstab.
Outcome<MountOptionList> parse_mount_options(std::string_view text, UnknownOption unknown = UnknownOption::refuse);

}  // namespace rekeyfs::tools
