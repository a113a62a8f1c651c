// `rekeyfs rotate`: gives a directory a new key and has its images encrypted anew.
#include <cstdio>
#include <memory>
#include <string>

#include "tools/commands/command.h"
#include "tools/human.h"
#include "tools/target.h"

namespace rekeyfs::tools {
namespace {

using nlohmann::json;

struct Options {
  std::string path, alias;
  UnlockOptions unlock;
  bool as_json = false;
};

void print_rotation(const json& answer, const Options& options) {
  const auto images = answer.at("images").get<std::uint64_t>();
  const std::string path = printable(answer.value("path", ""));
  std::printf("%s has the key %s; ", path.c_str(), printable(options.alias).c_str());
  if (images == 0) std::puts("every image in it has it already");
  else std::printf("%ju %s encrypted anew: `rekeyfs status --watch` shows how far\n", static_cast<std::uintmax_t>(images),
                   images == 1 ? "image is" : "images are");
}

Outcome<ExitCode> run(const Options& options) {
  RK_TRY_ASSIGN(std::unique_ptr<Target> target, Target::open(options.path, options.unlock));
  RK_TRY_ASSIGN(json answer, target->call({{"command", "rotate"}, {"alias", options.alias}}));
  RK_TRY(target->close());
  if (options.as_json)
    std::printf("%s\n", answer.dump(2).c_str());
  else
    print_rotation(answer, options);
  return ExitCode::ok;
}

}  // namespace

void add_rotate(CLI::App& parent, Chosen& chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* app = parent.add_subcommand("rotate", "Give a directory a new key and encrypt its images anew");
  app->add_option("DIR", options->path, "A directory inside a mount, or a store")->required()->type_name("");
  app->add_option("--key", options->alias, "Name or id of the new key")->required()->type_name("ALIAS");
  app->add_flag("--json", options->as_json, "Print JSON");
  add_unlock_options(*app, options->unlock);
  chosen.on(*app, [options] { return run(*options); });
}

}  // namespace rekeyfs::tools
