#include "tools/mount_helper.h"

#include <filesystem>
#include <string>
#include <string_view>

#include <getopt.h>

namespace rekeyfs::tools {
namespace {

constexpr const char* kUsage =
    "usage: mount.rekeyfs STORE MOUNTPOINT [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t rekeyfs]; by hand, use rekeyfs mount";

}  // namespace

bool is_mount_helper(const char* program) {
  return std::filesystem::path(program).filename() == "mount.rekeyfs";
}

// -f: "do everything except the mount itself" of mount(8). -n (no mtab) and -v have no effect here.
Outcome<MountRequest> parse_mount_helper(int count, char** arguments) {
  MountRequest request;
  UnknownOption unknown = UnknownOption::refuse;
  std::string joined;
  optind = 1;
  opterr = 0;
  for (int option; (option = getopt(count, arguments, "sfnvN:o:t:")) != -1;) {
    if (option == '?') return fail(ExitCode::usage, kUsage);
    if (option == 'o') joined += std::string(optarg) + ",";
    if (option == 's') unknown = UnknownOption::ignore;
    if (option == 'f') request.only_check = true;
    if (option == 'N') request.mount_namespace = optarg;
    if (option == 't' && std::string_view(optarg) != "rekeyfs")
      return fail(ExitCode::usage, "the file system type " + std::string(optarg) + " is unknown; use -t rekeyfs");
  }
  if (count - optind != 2) return fail(ExitCode::usage, kUsage);
  request.store = arguments[optind];
  request.mountpoint = arguments[optind + 1];
  RK_TRY_ASSIGN(request.options, parse_mount_options(joined, unknown));
  return request;
}

}  // namespace rekeyfs::tools
