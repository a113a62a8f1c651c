// The program `rekeyfs`, which mount(8) also calls as mount.rekeyfs: sets up the command line parser and runs the
// chosen command.
#include <cstdio>
#include <exception>
#include <string>

#include <sys/prctl.h>
#include <sys/resource.h>
#include <CLI/CLI.hpp>

#include "tools/commands/command.h"
#include "tools/exit_code.h"
#include "tools/log_target.h"
#include "tools/mount_helper.h"
#include "tools/report.h"

namespace rekeyfs::tools {
namespace {

// This process handles secrets: its memory must not be in a core file or readable by other processes of the user.
void keep_memory_private() {
  rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
  prctl(PR_SET_DUMPABLE, 0);
}

// The soft limit exists for programs that use select(2); the engine may use the hard limit.
void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

std::string exit_code_footer() {
  std::string text = "Exit codes:\n";
  for (const ExitCodeRow& row : exit_codes()) {
    std::string number = std::to_string(static_cast<int>(row.code));
    text += std::string(4 - number.size(), ' ') + number + "  " + std::string(row.meaning) + "\n";
  }
  return text;
}

Outcome<ExitCode> run_command(int count, char** arguments) {
  CLI::App app("Mounts a store of disk images and replicates them between encryption keys", "rekeyfs");
  app.set_version_flag("--version", "rekeyfs " REKEYFS_VERSION, "Print the version");
  app.set_help_flag("-h,--help", "Print this help");
  app.require_subcommand(0, 1);  // a missing command is reported below, after unknown arguments
  app.get_formatter()->column_width(34);
  app.failure_message(CLI::FailureMessage::simple);
  Chosen chosen;
  for (auto add : {add_init, add_mount, add_umount, add_key, add_replicate, add_rotate, add_status, add_info, add_profile, add_log, add_check})
    add(app, chosen);
  app.footer(exit_code_footer());
  try {
    app.parse(count, arguments);
  } catch (const CLI::Success& asked) {  // --help or --version
    app.exit(asked);
    return ExitCode::ok;
  } catch (const CLI::ParseError& error) {
    return fail(ExitCode::usage, std::string(error.what()) + "; see rekeyfs --help or rekeyfs COMMAND --help");
  }
  if (!chosen.any())
    return fail(ExitCode::usage, "a command is missing; rekeyfs --help lists the commands, rekeyfs key --help the commands for keys");
  return chosen.run();
}

Outcome<ExitCode> run_mount_helper(int count, char** arguments) {
  RK_TRY_ASSIGN(MountRequest request, parse_mount_helper(count, arguments));
  return mount_store(std::move(request));
}

int run(int count, char** arguments) {
  keep_memory_private();
  raise_descriptor_limit();
  log_to_stderr(LogDetail::warnings);
  Outcome<ExitCode> code =
      is_mount_helper(arguments[0]) ? run_mount_helper(count, arguments) : run_command(count, arguments);
  if (code) return static_cast<int>(*code);
  report(code.error());
  return static_cast<int>(code.error().code);
}

}  // namespace
}  // namespace rekeyfs::tools

int main(int count, char** arguments) {
  try {
    return rekeyfs::tools::run(count, arguments);
  } catch (const std::exception& exception) {  // an answer of another version of the daemon, or no memory
    std::fprintf(stderr, "rekeyfs: unexpected error: %s\n", exception.what());
    return static_cast<int>(rekeyfs::tools::ExitCode::failure);
  }
}
