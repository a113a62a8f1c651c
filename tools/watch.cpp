#include "tools/watch.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <unistd.h>

#include "tools/columns.h"
#include "tools/human.h"
#include "tools/pages.h"
#include "tools/progress_bar.h"
#include "tools/report.h"

namespace rekeyfs::tools {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr milliseconds kShortestPause{5}, kLongestPause{100}, kRedraw{200}, kPlainLines{1000};

tl::unexpected<Failure> interrupted() {
  return fail(ExitCode::failure, "interrupted");
}

bool replicates(const json& answer) {
  const json& list = answer.at("replications");
  return std::any_of(list.begin(), list.end(), [](const json& one) { return one.value("state", "") == "replicating"; });
}

// Why background work does not run; null if it does.
json stopped(const json& answer) {
  return answer.value("stopped", json());
}

bool is_reached(const json& answer, Until until) {
  return until == Until::settled ? has_settled(answer) : !replicates(answer);
}

bool is_over(const json& answer, Until until) {
  return is_reached(answer, until) || !stopped(answer).is_null();
}

// The output: bars redrawn in place on a terminal, otherwise one line after the other.
class Display {
 public:
  virtual ~Display() = default;
  virtual milliseconds pause() const = 0;
  // `finished`: sentences about replications that have left the list since the last answer.
  virtual void show(const std::vector<std::string>& finished, const json& answer) = 0;
  virtual void stop() = 0;
};

class TerminalDisplay : public Display {
 public:
  milliseconds pause() const override { return kRedraw; }
  void show(const std::vector<std::string>& finished, const json& answer) override {
    const std::vector<Progress> list = progress_list_of(answer);
    std::size_t columns = screen_.columns(), most = std::max<std::size_t>(screen_.rows(), 3) - 2;
    std::vector<std::string> above, lines;
    for (const std::string& line : finished) above.push_back(fit(line, columns));
    for (std::size_t i = 0; i < std::min(list.size(), most); ++i) lines.push_back(bar_line(list[i], columns));
    if (list.size() > most) lines.push_back("… and " + std::to_string(list.size() - most) + " more");
    screen_.show(above, lines);
  }
  void stop() override { screen_.tidy(); }

 private:
  BarScreen screen_{STDOUT_FILENO};
};

class PlainDisplay : public Display {
 public:
  milliseconds pause() const override { return kPlainLines; }
  void show(const std::vector<std::string>& finished, const json& answer) override {
    for (const std::string& line : finished) std::puts(line.c_str());
    for (const Progress& progress : progress_list_of(answer)) std::puts(plain_line(progress).c_str());
    std::fflush(stdout);
  }
  void stop() override {}
};

class JsonDisplay : public Display {
 public:
  milliseconds pause() const override { return kPlainLines; }
  void show(const std::vector<std::string>&, const json& answer) override {
    std::puts(answer.dump().c_str());
    std::fflush(stdout);
  }
  void stop() override {}
};

// Replications that have left the list since the last call: completed or removed.
class Departures {
 public:
  Outcome<std::vector<std::string>> update(Target& target, const std::vector<Progress>& list) {
    std::set<std::string> now;
    for (const Progress& progress : list) now.insert(progress.path);
    std::vector<std::string> lines;
    for (const std::string& path : before_) {
      if (now.contains(path)) continue;
      RK_TRY_ASSIGN(std::string what, fate_of(target, path));
      lines.push_back(printable(path) + "  " + what);
    }
    before_ = std::move(now);
    return lines;
  }

 private:
  static Outcome<std::string> fate_of(Target& target, const std::string& path) {
    Outcome<json> state = target.call({{"command", "state"}, {"path", path}});
    if (state) return std::string("finished");
    if (state.error().code == ExitCode::not_found) return std::string("removed");
    return tl::unexpected(std::move(state).error());
  }

  std::set<std::string> before_;
};

Outcome<json> follow(Target& target, Interrupt& interrupt, Until until, Display& display) {
  Departures departures;
  while (true) {
    RK_TRY_ASSIGN(json answer, call_for_replications(target, "progress"));
    RK_TRY_ASSIGN(std::vector<std::string> finished, departures.update(target, progress_list_of(answer)));
    display.show(finished, answer);
    if (is_over(answer, until)) return answer;
    if (interrupt.came_within(display.pause())) {
      display.stop();
      return interrupted();
    }
  }
}

}  // namespace

bool has_settled(const json& answer) {
  if (answer.value("kind", "") != "image") return !replicates(answer);
  std::string status = answer.value("status", "");
  return status == "normal" || status == "error";
}

ExitCode verdict(const json& answer, Until until) {
  ExitCode code = ExitCode::ok;
  for (const Progress& progress : progress_list_of(answer)) {
    if (!progress.failed()) continue;
    code = ExitCode::replication_failed;
    report({code, "the replication to " + progress.path + " is in error: " + progress.error});
  }
  if (code == ExitCode::ok && answer.value("status", "") == "error") {
    code = ExitCode::replication_failed;
    report({code, "the replication of the image failed; rekeyfs info shows the reason"});
  }
  if (code == ExitCode::ok && !is_reached(answer, until) && !stopped(answer).is_null()) {
    code = ExitCode::stopped;
    report({code, stopped(answer).get<std::string>() +
                      "; what is waited for goes on when the store is mounted to be written to"});
  }
  return code;
}

// The pause is 2 % of the time waited so far: a short replication is noticed immediately, a long one causes little
// load.
Outcome<json> wait_until_settled(Target& target, Interrupt& interrupt) {
  Clock::time_point start = Clock::now();
  while (true) {
    RK_TRY_ASSIGN(json answer, call_for_replications(target, "progress"));
    if (is_over(answer, Until::settled)) return answer;
    auto waited = std::chrono::duration_cast<milliseconds>(Clock::now() - start);
    if (interrupt.came_within(std::clamp(waited / 50, kShortestPause, kLongestPause))) return interrupted();
  }
}

Outcome<json> watch(Target& target, Interrupt& interrupt, Until until) {
  TerminalDisplay terminal;
  PlainDisplay plain;
  bool on_terminal = isatty(STDOUT_FILENO) == 1;
  return follow(target, interrupt, until, on_terminal ? static_cast<Display&>(terminal) : plain);
}

Outcome<json> watch_as_json(Target& target, Interrupt& interrupt, Until until) {
  JsonDisplay lines;
  return follow(target, interrupt, until, lines);
}

}  // namespace rekeyfs::tools
