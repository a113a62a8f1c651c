// `rekeyfs mount`: serves a store as a file system.
#include <memory>
#include <string>
#include <vector>

#include "tools/commands/command.h"
#include "tools/mount_store.h"

namespace rekeyfs::tools {
namespace {

struct Options {
  MountRequest request;
  std::vector<std::string> lists;
};

Outcome<ExitCode> run(const Options& options) {
  std::string joined;
  for (const std::string& list : options.lists) joined += list + ",";
  MountRequest request = options.request;
  RK_TRY_ASSIGN(request.options, parse_mount_options(joined));
  return mount_store(std::move(request));
}

}  // namespace

void add_mount(CLI::App& parent, Chosen& chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* app = parent.add_subcommand("mount", "Mount a store");
  app->add_option("STORE", options->request.store, "A store")->required()->type_name("");
  app->add_option("MOUNTPOINT", options->request.mountpoint, "An empty directory")->required()->type_name("");
  app->add_flag("-f,--foreground", options->request.foreground, "Stay in the foreground, with the log on stderr");
  app->add_option("-o,--options", options->lists,
                  "Mount options: ro, rw, exec, noexec, allow_other, key_file=FILE, passphrase_file=FILE, "
                  "writeback_cache, hot=SIZE, hot_idle=SECONDS, user_keys=NUMBER, log=FILE")
      ->type_name("OPT,...")
      ->allow_extra_args(false);
  add_unlock_options(*app, options->request.unlock);
  chosen.on(*app, [options] { return run(*options); });
}

}  // namespace rekeyfs::tools
