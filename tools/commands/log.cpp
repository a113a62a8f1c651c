// `rekeyfs log`: prints the audit log of a store, or verifies it.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "tools/commands/command.h"
#include "tools/event_text.h"
#include "tools/human.h"
#include "tools/interrupt.h"
#include "tools/target.h"

namespace rekeyfs::tools {
namespace {

using nlohmann::json;

constexpr std::uint64_t kMost = 25'000;  // number of events that a store keeps
constexpr std::chrono::milliseconds kPause{500};

struct Options {
  std::string path;
  UnlockOptions unlock;
  std::uint64_t most = 100;
  std::optional<std::uint64_t> after;
  bool follow = false, as_json = false, verify = false;
};

void print_line(const std::string& line) { std::printf("%s\n", line.c_str()); }

void print(const json& event, bool as_json) {
  print_line(as_json ? event.dump()
                     : printable(local_moment_text(event.value("time", "")) + "  " + who_text(event) + "  " + what_text(event)));
}

// Events that were dropped before they could be printed.
void print_gap(std::uint64_t first, std::uint64_t last, bool as_json) {
  if (as_json) print_line(json{{"kind", "dropped"}, {"first", first}, {"last", last}}.dump());
  else print_line("events " + std::to_string(first) + " to " + std::to_string(last) + " are no longer in the log");
}

// Prints events in pages, from the oldest to the newest.
class Listing {
 public:
  Listing(Target& target, bool as_json) : target_(target), as_json_(as_json) {}

  // The newest `most`.
  Outcome<void> print_newest(std::uint64_t most) { return print_pages(most, false); }
  // All that come after the last one. Gaps are told if the caller may see everybody's events.
  Outcome<void> print_next() {
    tells_gaps_ = true;
    return print_pages(kMost, true);
  }
  void start_after(std::uint64_t number) { last_ = number; }

 private:
  Outcome<void> print_pages(std::uint64_t most, bool oldest) {
    while (most > 0) {
      RK_TRY_ASSIGN(const json answer, target_.call({{"command", "log"}, {"most", most}, {"after", last_}, {"oldest", oldest}}));
      const json& events = answer.at("events");
      for (const json& event : events) print_one(event, answer.value("all", false));
      if (answer.at("last").is_null()) break;
      last_ = answer.at("last").get<std::uint64_t>();
      std::fflush(stdout);
      if (std::ferror(stdout) != 0) return fail(ExitCode::failure, "cannot write the log to standard output");
      most -= std::min<std::uint64_t>(most, events.size());
      oldest = true;  // goes on behind the page
    }
    return {};
  }

  void print_one(const json& event, bool has_all) {
    const auto number = event.at("number").get<std::uint64_t>();
    if (tells_gaps_ && has_all && number > last_ + 1) print_gap(last_ + 1, number - 1, as_json_);
    print(event, as_json_);
    last_ = number;
  }

  Target& target_;
  const bool as_json_;
  std::uint64_t last_ = 0;
  bool tells_gaps_ = false;
};

Outcome<void> print_first(Listing& listing, const Options& options) {
  if (!options.after) return listing.print_newest(options.most);
  listing.start_after(*options.after);
  return listing.print_next();
}

Outcome<ExitCode> follow(const Options& options, Target& target, Interrupt& interrupt) {
  Listing listing(target, options.as_json);
  RK_TRY(print_first(listing, options));
  while (!interrupt.came_within(kPause)) RK_TRY(listing.print_next());
  return ExitCode::ok;
}

void print_verification(const json& log) {
  for (const json& problem : log.at("problems")) print_line(printable(problem.get<std::string>()));
  const std::uint64_t events = log.value("events", std::uint64_t{0}), unverified = log.value("unverified", std::uint64_t{0});
  const std::string range = std::to_string(log.value("first", std::uint64_t{0})) + " to " + std::to_string(log.value("last", std::uint64_t{0}));
  const std::string what = log.at("problems").empty() ? ", in its chain, unchanged and complete" : ", and its chain is broken";
  print_line(events == 0 ? "the log has no events in its chain"
                         : "the log has " + std::to_string(events) + " of the events " + range + what);
  if (unverified > 0) print_line(std::to_string(unverified) + " older events are not verified: the chain began after them");
}

Outcome<ExitCode> verify(const Options& options, Target& target) {
  RK_TRY_ASSIGN(const json log, target.call({{"command", "log-verify"}}));
  if (options.as_json) print_line(log.dump());
  else print_verification(log);
  return log.at("problems").empty() ? ExitCode::ok : ExitCode::damaged;
}

Outcome<ExitCode> run(const Options& options) {
  if (options.follow) {
    Interrupt interrupt;  // declared before the target, so that the store is closed before Ctrl-C takes effect
    RK_TRY_ASSIGN(std::unique_ptr<Target> target, Target::open(options.path, options.unlock, Filling::go_on));
    return follow(options, *target, interrupt);
  }
  RK_TRY_ASSIGN(std::unique_ptr<Target> target, Target::open(options.path, options.unlock));
  if (options.verify) return verify(options, *target);
  Listing listing(*target, options.as_json);
  RK_TRY(print_first(listing, options));
  return ExitCode::ok;
}

}  // namespace

void add_log(CLI::App& parent, Chosen& chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* app = parent.add_subcommand("log", "Show who copied what, what was refused, and what was done with keys");
  app->add_option("PATH", options->path, "A path inside a mount, or a store")->required()->type_name("");
  CLI::Option* most = app->add_option("-n", options->most, "Show the latest N, 1 to 25000; 100 if not given")
                          ->check(CLI::Range(std::uint64_t{1}, kMost))
                          ->type_name("N");
  app->add_option("--after", options->after, "Show all events after the one with this number")->type_name("NUMBER")->excludes(most);
  CLI::Option* follow = app->add_flag("--follow", options->follow, "Go on with what happens, until Ctrl-C");
  app->add_flag("--json", options->as_json, "Print JSON, an object a line");
  app->add_flag("--verify", options->verify, "Tell whether an event is missing or was changed")->excludes(follow)->excludes(most);
  add_unlock_options(*app, options->unlock);
  chosen.on(*app, [options] { return run(*options); });
}

}  // namespace rekeyfs::tools
