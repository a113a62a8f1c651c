// `rekeyfs rotate`: gives a directory a new key and re-encrypts its images.
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
  bool dry_run = false, as_json = false;
};

std::string images_text(std::uint64_t images) {
  return std::to_string(images) + (images == 1 ? " image" : " images");
}

std::string member_text(const json& answer, const char* member) {
  return bytes_text(answer.at(member).get<std::uint64_t>());
}

void print_plan(const json& answer, const Options& options) {
  const auto images = answer.at("images").get<std::uint64_t>();
  const bool fits = answer.at("space_needed") <= answer.at("space_available");
  std::printf("to encrypt  %s of %s, with the key %s\n", images_text(images).c_str(), printable(answer.value("path", "")).c_str(),
              printable(options.alias).c_str());
  std::printf("transform   at most %s\n", member_text(answer, "bytes_to_transform").c_str());
  std::printf("space       at most %s needed at one time, %s available%s\n", member_text(answer, "space_needed").c_str(),
              member_text(answer, "space_available").c_str(), fits ? "" : ": NOT ENOUGH");
}

void print_rotation(const json& answer, const Options& options) {
  const auto images = answer.at("images").get<std::uint64_t>();
  const std::string path = printable(answer.value("path", ""));
  std::printf("%s has the key %s; ", path.c_str(), printable(options.alias).c_str());
  if (images == 0) std::puts("every image in it has it already");
  else std::printf("%s %s encrypted anew, at most %s, with at most %s more on the disk at one time: `rekeyfs status --watch` shows how far\n",
                   images_text(images).c_str(), images == 1 ? "is" : "are", member_text(answer, "bytes_to_transform").c_str(),
                   member_text(answer, "space_needed").c_str());
}

void print_skipped(const json& answer) {
  const json& skipped = answer.at("skipped");
  const auto count = answer.at("skipped_count").get<std::uint64_t>();
  if (count == 0) return;
  std::puts("keep their keys:");
  for (const json& one : skipped) std::printf("  %s: %s\n", printable(one.value("path", "")).c_str(), printable(one.value("why", "")).c_str());
  if (count > skipped.size()) std::printf("  and %s more\n", std::to_string(count - skipped.size()).c_str());
}

Outcome<ExitCode> run(const Options& options) {
  RK_TRY_ASSIGN(std::unique_ptr<Target> target, Target::open(options.path, options.unlock));
  RK_TRY_ASSIGN(json answer, target->call({{"command", "rotate"}, {"alias", options.alias}, {"dry_run", options.dry_run}}));
  RK_TRY(target->close());
  if (options.as_json)
    std::printf("%s\n", answer.dump(2).c_str());
  else if (options.dry_run)
    print_plan(answer, options);
  else
    print_rotation(answer, options);
  if (!options.as_json) print_skipped(answer);
  return answer.at("skipped_count") == 0 ? ExitCode::ok : ExitCode::partial;
}

}  // namespace

void add_rotate(CLI::App& parent, Chosen& chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* app = parent.add_subcommand("rotate", "Give a directory a new key and encrypt its images anew");
  app->add_option("DIR", options->path, "A directory inside a mount, or a store")->required()->type_name("");
  app->add_option("--key", options->alias, "Name or id of the new key")->required()->type_name("ALIAS");
  app->add_flag("--dry-run", options->dry_run, "Change nothing; say what is transformed, and the space it needs");
  app->add_flag("--json", options->as_json, "Print JSON");
  add_unlock_options(*app, options->unlock);
  chosen.on(*app, [options] { return run(*options); });
}

}  // namespace rekeyfs::tools
