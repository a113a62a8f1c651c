#include "engine/store/features.h"

#include <array>

namespace rekeyfs::store {
namespace {

constexpr unsigned kFlags = 64;  // flags per set

using Set = std::uint64_t Features::*;

struct Known {
  Feature feature;
  Set set;
  std::uint64_t flag;
  std::string_view name;
};
constexpr std::array kKnown{  // numbers on disk, never reused
    Known{Feature::rules, &Features::ro_compat, 1u << 0, "rules"},
    Known{Feature::key_rights, &Features::incompat, 1u << 0, "key-rights"},
};

const Known& row_of(Feature feature) {
  for (const Known& row : kKnown)
    if (row.feature == feature) return row;
  return kKnown.front();  // not reached
}

std::uint64_t unknown_in(const Features& features, Set set) {
  std::uint64_t flags = features.*set;
  for (const Known& row : kKnown)
    if (row.set == set) flags &= ~row.flag;
  return flags;
}

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

std::string_view name_of(Feature feature) { return row_of(feature).name; }

bool has(const Features& features, Feature feature) {
  const Known& row = row_of(feature);
  return (features.*row.set & row.flag) != 0;
}

Features with(Features features, Feature feature) {
  const Known& row = row_of(feature);
  features.*row.set |= row.flag;
  return features;
}

std::string_view effect_of(Feature feature) {
  return row_of(feature).set == &Features::incompat ? "cannot open it" : "can only read it";
}

Status can_read(const Features& features) {
  return refuse("incompat", unknown_in(features, &Features::incompat), "use the rekeyfs that added them, or a newer one");
}

Status can_write(const Features& features) {
  RK_TRY(can_read(features));
  return refuse("ro_compat", unknown_in(features, &Features::ro_compat),
                "mount it read-only (-o ro), or use the rekeyfs that added them, or a newer one");
}

std::vector<std::string> unknown_flags(const Features& features) {
  std::vector<std::string> flags;
  add_flags(flags, "compat", unknown_in(features, &Features::compat));
  add_flags(flags, "ro_compat", unknown_in(features, &Features::ro_compat));
  add_flags(flags, "incompat", unknown_in(features, &Features::incompat));
  return flags;
}

}  // namespace rekeyfs::store
