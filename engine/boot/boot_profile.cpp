#include "engine/boot/boot_profile.h"

namespace rekeyfs::boot {

std::uint64_t BootProfile::bytes() const {
  std::uint64_t units = 0;
  for (const Run& run : runs) units += run.count;
  return units * kUnit;
}

std::string BootProfile::encode() const {
  Writer out;
  out.put_time(recorded).put(static_cast<std::uint32_t>(runs.size()));
  for (const Run& run : runs) out.put(run.first).put(run.count);
  return out.take();
}

Result<BootProfile> BootProfile::decode(std::string_view bytes) {
  Reader in(bytes);
  BootProfile profile;
  profile.recorded = in.get_time();
  const auto count = in.get<std::uint32_t>();
  if (count == 0 || count > kMaxRuns) return fail(Errc::corrupt, "a boot profile has no runs, or too many");
  profile.runs.reserve(count);
  for (std::uint32_t i = 0; i < count; ++i) {
    Run run;
    run.first = in.get<std::uint32_t>();
    run.count = in.get<std::uint32_t>();
    if (run.count == 0 || run.end() > kUnits) return fail(Errc::corrupt, "a boot profile is malformed");
    profile.runs.push_back(run);
  }
  if (!in.finished()) return fail(Errc::corrupt, "a boot profile is malformed");
  return profile;
}

}  // namespace rekeyfs::boot
