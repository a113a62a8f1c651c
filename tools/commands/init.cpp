// `rekeyfs init`: creates a store.
#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include <sys/stat.h>

#include "engine/engine.h"
#include "tools/commands/command.h"
#include "tools/secret_file.h"
#include "tools/unlock.h"

namespace rekeyfs::tools {
namespace {

struct Options {
  std::string store;
  UnlockOptions unlock;
};

Outcome<ExitCode> run(const Options& options) {
  umask(077);  // a store is accessible to its owner only, regardless of the shell's umask
  std::optional<NewKeyFile> key_file;
  if (!options.unlock.key_file.empty()) {
    RK_TRY_ASSIGN(NewKeyFile file, NewKeyFile::make_if_missing(options.unlock.key_file));
    key_file.emplace(std::move(file));
  }
  RK_TRY_ASSIGN(Credential credential, new_credential(options.unlock));
  RK_TRY(Engine::initialize(options.store, credential));
  std::printf("made the store %s\n", options.store.c_str());
  if (key_file && key_file->made())
    std::printf("made the key file %s; without it nobody can read the store: keep a copy elsewhere\n",
                options.unlock.key_file.c_str());
  if (key_file) key_file->keep();
  return ExitCode::ok;
}

}  // namespace

void add_init(CLI::App& parent, Chosen& chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* app = parent.add_subcommand("init", "Make a store");
  app->add_option("STORE", options->store, "A directory that is missing or empty")->required()->type_name("");
  add_unlock_options(*app, options->unlock);
  app->footer("A key file that is missing is made. Without either file, a passphrase is asked for.");
  chosen.on(*app, [options] { return run(*options); });
}

}  // namespace rekeyfs::tools
