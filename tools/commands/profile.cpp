// `rekeyfs profile …`: shows or clears the boot profile of an image.
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
  std::string path;
  UnlockOptions unlock;
  bool as_json = false;
};
using Print = void (*)(const json& answer);

void print_profile(const json& answer) {
  const std::string path = printable(answer.value("path", ""));
  const json& profile = answer.at("profile");
  if (profile.is_null()) {
    std::printf("%s has no boot profile; the first boot from it, or from a clone of it, is recorded\n", path.c_str());
    return;
  }
  const json& ranges = profile.at("ranges");
  std::printf("%s: the first boot read %s in %zu %s, recorded %s\n", path.c_str(),
              bytes_text(profile.at("bytes").get<std::uint64_t>()).c_str(), ranges.size(),
              ranges.size() == 1 ? "range" : "ranges", moment_text(profile.value("recorded", "")).c_str());
}

void print_cleared(const json& answer) {
  std::printf("the boot profile of %s is gone; the next boot is recorded\n", printable(answer.value("path", "")).c_str());
}

Outcome<ExitCode> run(const Options& options, const char* command, Print print) {
  RK_TRY_ASSIGN(std::unique_ptr<Target> target, Target::open(options.path, options.unlock));
  RK_TRY_ASSIGN(json answer, target->call({{"command", command}}));
  RK_TRY(target->close());
  if (options.as_json) std::printf("%s\n", answer.dump(2).c_str());
  else print(answer);
  return ExitCode::ok;
}

void add_subcommand(CLI::App& parent, Chosen& chosen, const char* name, const char* about, const char* command, Print print) {
  auto options = std::make_shared<Options>();
  CLI::App* app = parent.add_subcommand(name, about);
  app->add_option("IMAGE", options->path, "An image inside a mount")->required()->type_name("");
  app->add_flag("--json", options->as_json, "Print JSON");
  add_unlock_options(*app, options->unlock);
  chosen.on(*app, [=] { return run(*options, command, print); });
}

}  // namespace

void add_profile(CLI::App& parent, Chosen& chosen) {
  CLI::App* app = parent.add_subcommand("profile", "Show or clear what the first boot from an image read");
  app->require_subcommand(0, 1);
  add_subcommand(*app, chosen, "show", "Show how much the first boot read; with --json, where", "profile-show", print_profile);
  add_subcommand(*app, chosen, "clear", "Forget it, so that the next boot is recorded", "profile-clear", print_cleared);
}

}  // namespace rekeyfs::tools
