#include "engine/store/features.h"

namespace rekeyfs::store {
namespace {

constexpr unsigned kFlags = 64;  // flags per set

void add_flags(std::vector<std::string>& flags, std::string_view set, std::uint64_t bits) {
  for (unsigned bit = 0; bit < kFlags; ++bit)
    if (bits >> bit & 1) flags.push_back(std::string(set) + " " + std::to_string(bit));
}

std::string list_of(const std::vector<std::string>& flags) {
  std::string text;
  for (const std::string& flag : flags) text += (text.empty() ? "" : ", ") + flag;
  return text;
}

Status refuse(std::string_view set, std::uint64_t bits, std::string_view next_step) {
  if (bits == 0) return {};
  std::vector<std::string> flags;
  add_flags(flags, set, bits);
  return fail(Errc::wrong_version, "the store has features that this rekeyfs does not know (" + list_of(flags) + "): " + std::string(next_step));
}

}  // namespace

Status can_read(const Features& features) {
  return refuse("incompat", features.incompat, "use the rekeyfs that added them, or a newer one");
}

Status can_write(const Features& features) {
  RK_TRY(can_read(features));
  return refuse("ro_compat", features.ro_compat, "mount it read-only (-o ro), or use the rekeyfs that added them, or a newer one");
}

std::vector<std::string> unknown_flags(const Features& features) {
  std::vector<std::string> flags;
  add_flags(flags, "compat", features.compat);
  add_flags(flags, "ro_compat", features.ro_compat);
  add_flags(flags, "incompat", features.incompat);
  return flags;
}

}  // namespace rekeyfs::store
