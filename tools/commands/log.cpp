// `rekeyfs log`: prints the audit log of a store.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>

#include "tools/commands/command.h"
#include "tools/human.h"
#include "tools/interrupt.h"
#include "tools/target.h"

namespace rekeyfs::tools {
namespace {

using nlohmann::json;

constexpr unsigned kMost = 10'000;  // number of events that a store keeps
constexpr std::chrono::milliseconds kPause{500};

struct Options {
  std::string path;
  UnlockOptions unlock;
  unsigned most = 100;
  bool follow = false, as_json = false;
};

std::string key_text(const json& event, const char* member) {
  std::string alias = event.value(member, "");
  if (!alias.empty()) return alias;
  std::string id = event.value(std::string(member) + "_id", "");
  return id.empty() ? "plain" : id;
}

std::string completed_text(const json& event) {
  std::string text = "completed " + event.value("path", "");
  const json& seconds = event.at("seconds");
  if (!seconds.is_number()) return text;
  auto bytes = event.at("bytes").get<std::uint64_t>();
  return text + ": " + bytes_text(bytes) + " at " +
         rate_text(static_cast<double>(bytes) / std::max(seconds.get<double>(), 1e-9));
}

// The text of an event after the user's name.
std::string what_text(const json& event) {
  const std::string kind = event.value("kind", ""), path = event.value("path", ""), source = event.value("source", ""),
                    text = event.value("text", "");
  if (kind == "replication-asked")
    return "replicated " + source + " to " + path + " (" + key_text(event, "key_before") + " -> " +
           key_text(event, "key") + ")";
  if (kind == "cloned") return "cloned " + source + " to " + path + " (" + key_text(event, "key") + ")";
  if (kind == "replication-completed") return completed_text(event);
  if (kind == "replication-failed") return "stopped " + path + ": " + text;
  if (kind == "replication-recovered") return "resumed " + path;
  if (kind == "refused") return "refused " + (source.empty() ? "" : source + " to ") + path + ": " + text;
  if (kind == "rotation-asked") return "gave " + path + " a new key (" + key_text(event, "key_before") + " -> " + key_text(event, "key") + ")";
  if (kind == "policy-changed") return "changed " + path + ": " + text;
  if (kind == "quota-changed") return "changed the quota of " + path + ": " + text;
  if (kind == "declassified") return "copied " + source + " to " + path + " in plain (" + key_text(event, "key_before") + " -> plain)";
  if (kind == "rotation-skipped") return "kept the key " + key_text(event, "key_before") + " of " + path + ": " + text;
  if (kind == "clock-jumped") return "the clock jumped: " + text;
  if (kind == "right-granted") return "granted a right to the key " + key_text(event, "key") + ": " + text;
  if (kind == "right-revoked") return "revoked a right to the key " + key_text(event, "key") + ": " + text;
  if (kind == "key-deletion-asked") return "asked to delete the key " + key_text(event, "key") + (text.empty() ? "" : ": " + text);
  if (kind == "key-deletion-cancelled") return "cancelled the deletion of the key " + key_text(event, "key");
  // "key-created" and similar ones, and kinds that only a newer daemon knows.
  std::string what = kind.starts_with("key-") ? kind.substr(4) + " the key " + key_text(event, "key") : kind + " " + path;
  return what + (text.empty() ? "" : ": " + text);
}

void print(const json& events, bool as_json) {
  for (const json& event : events) {
    std::string line = as_json ? event.dump()
                               : printable(local_moment_text(event.value("time", "")) + "  " +
                                           user_text(event.at("uid").get<std::uint32_t>()) + "  " + what_text(event));
    std::puts(line.c_str());
  }
  std::fflush(stdout);
}

Outcome<ExitCode> follow(const Options& options, Target& target, Interrupt& interrupt) {
  std::uint64_t last = 0;
  std::uint64_t most = options.most;
  while (true) {
    RK_TRY_ASSIGN(json answer, target.call({{"command", "log"}, {"most", most}, {"after", last}}));
    const json& events = answer.at("events");
    print(events, options.as_json);
    if (!events.empty()) last = events.back().at("number").get<std::uint64_t>();
    most = kMost;
    if (interrupt.came_within(kPause)) return ExitCode::ok;
  }
}

Outcome<ExitCode> run(const Options& options) {
  if (options.follow) {
    Interrupt interrupt;  // declared before the target, so that the store is closed before Ctrl-C takes effect
    RK_TRY_ASSIGN(std::unique_ptr<Target> target, Target::open(options.path, options.unlock, Filling::go_on));
    return follow(options, *target, interrupt);
  }
  RK_TRY_ASSIGN(std::unique_ptr<Target> target, Target::open(options.path, options.unlock));
  RK_TRY_ASSIGN(json answer, target->call({{"command", "log"}, {"most", options.most}}));
  print(answer.at("events"), options.as_json);
  return ExitCode::ok;
}

}  // namespace

void add_log(CLI::App& parent, Chosen& chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* app = parent.add_subcommand("log", "Show who copied what, what was refused, and what was done with keys");
  app->add_option("PATH", options->path, "A path inside a mount, or a store")->required()->type_name("");
  app->add_option("-n", options->most, "Show the latest N, 1 to 10000; 100 if not given")
      ->check(CLI::Range(1U, kMost))
      ->type_name("N");
  app->add_flag("--follow", options->follow, "Go on with what happens, until Ctrl-C");
  app->add_flag("--json", options->as_json, "Print JSON, an object a line");
  add_unlock_options(*app, options->unlock);
  chosen.on(*app, [options] { return run(*options); });
}

}  // namespace rekeyfs::tools
