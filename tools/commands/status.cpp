// `rekeyfs status`: shows replications, their progress, and recent refusals.
#include <cstdio>
#include <memory>
#include <string>

#include "tools/commands/command.h"
#include "tools/human.h"
#include "tools/pages.h"
#include "tools/progress_bar.h"
#include "tools/quota_text.h"
#include "tools/table.h"
#include "tools/target.h"
#include "tools/watch.h"

namespace rekeyfs::tools {
namespace {

using nlohmann::json;

struct Options {
  std::string path;
  UnlockOptions unlock;
  bool watch = false, wait = false, as_json = false;
};

std::string key_text(const json& replication, const char* member) {
  std::string key = replication.value(member, "");
  return key.empty() ? "plain" : key;
}

void print_replications(const json& list) {
  if (list.empty()) {
    std::puts("nothing is replicating");
    return;
  }
  Table table({"PATH", "DONE", "BYTES", "RATE", "LEFT", "KEYS", "STATE"});
  for (const json& replication : list) {
    Progress progress = progress_of(replication);
    table.add({progress.path, percent_text(progress.percent),
               bytes_text(progress.bytes_done) + " of " + bytes_text(progress.bytes_total),
               rate_text(progress.bytes_per_second),
               progress.seconds_left ? duration_text(*progress.seconds_left) : "-",
               key_text(replication, "key_before") + " -> " + key_text(replication, "key_after"),
               progress.failed() ? "error: " + progress.error : progress.state});
  }
  std::fputs(table.text().c_str(), stdout);
}

void print_refusals(const json& list) {
  if (list.empty()) return;
  std::puts("\nrefused lately:");
  Table table({"TIME", "TARGET", "SOURCE", "UID", "WHY"});
  for (const json& refusal : list)
    table.add({moment_text(refusal.value("time", "")), refusal.value("path", ""), refusal.value("source", ""),
               refusal.at("uid").dump(), refusal.value("rule", "")});
  std::fputs(table.text().c_str(), stdout);
}

void print_status(const json& status) {
  if (status.contains("read_only") && !status.at("read_only").is_null())
    std::printf("%s\n", status.at("read_only").get<std::string>().c_str());
  if (status.contains("status"))
    std::printf("%s is %s\n", printable(status.value("path", "")).c_str(), status.value("status", "").c_str());
  if (!status.at("quota").is_null()) std::printf("quota: %s\n", quota_text(status.at("quota")).c_str());
  print_replications(status.at("replications"));
  print_refusals(status.at("refusals"));
}

Outcome<ExitCode> show(Target& target, bool as_json, bool silent) {
  RK_TRY_ASSIGN(json status, call_for_replications(target, "status"));
  if (as_json)
    std::printf("%s\n", status.dump(2).c_str());
  else if (!silent)
    print_status(status);
  return ExitCode::ok;
}

Until until_of(const Options& options) {
  return options.wait ? Until::settled : Until::nothing_replicates;
}

Outcome<json> look_until_over(const Options& options, Target& target, Interrupt& interrupt) {
  const Until until = until_of(options);
  if (!options.watch) return wait_until_settled(target, interrupt);
  return options.as_json ? watch_as_json(target, interrupt, until) : watch(target, interrupt, until);
}

Outcome<ExitCode> follow(const Options& options, Target& target, Interrupt& interrupt) {
  RK_TRY_ASSIGN(const json last, look_until_over(options, target, interrupt));
  if (options.watch && !options.as_json && last.at("replications").empty()) std::puts("nothing is replicating");
  if (!options.watch) RK_TRY(show(target, options.as_json, true));
  return verdict(last, until_of(options));
}

Outcome<ExitCode> run(const Options& options) {
  bool follows = options.watch || options.wait;
  if (!follows) {
    RK_TRY_ASSIGN(std::unique_ptr<Target> target, Target::open(options.path, options.unlock));
    return show(*target, options.as_json, false);
  }
  Interrupt interrupt;  // declared before the target, so that the store is closed before Ctrl-C takes effect
  RK_TRY_ASSIGN(std::unique_ptr<Target> target, Target::open(options.path, options.unlock, Filling::go_on));
  return follow(options, *target, interrupt);
}

}  // namespace

void add_status(CLI::App& parent, Chosen& chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* app = parent.add_subcommand("status", "Show replications with their progress, and recent refusals");
  app->add_option("PATH", options->path, "A path inside a mount, or a store")->required()->type_name("");
  app->add_flag("--watch", options->watch, "Show progress until nothing replicates any more");
  app->add_flag("--wait", options->wait,
                "Return when nothing replicates any more; an image: when it is normal or in error");
  app->add_flag("--json", options->as_json, "Print JSON; with --watch, a line each second");
  add_unlock_options(*app, options->unlock);
  chosen.on(*app, [options] { return run(*options); });
}

}  // namespace rekeyfs::tools
