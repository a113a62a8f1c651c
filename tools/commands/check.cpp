// `rekeyfs check`: verifies a store and, on request, repairs it.
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include <fcntl.h>
#include <unistd.h>

#include "engine/base/descriptor.h"
#include "engine/engine.h"
#include "tools/commands/command.h"
#include "tools/daemon_call.h"
#include "tools/human.h"
#include "tools/mounts.h"
#include "tools/read_mount.h"
#include "tools/unlock.h"

namespace rekeyfs::tools {
namespace {

using nlohmann::json;

struct Options {
  std::string path;
  std::optional<std::string> anchor;
  UnlockOptions unlock;
  bool read_data = false, repair = false, as_json = false;
};

// Prints problems to stdout, and progress on the last line of a terminal.
class Screen final : public CheckObserver {
 public:
  explicit Screen(bool as_json) : as_json_(as_json), terminal_(isatty(STDERR_FILENO) != 0) {}
  ~Screen() override { clear(); }

  void progress(std::string_view stage, std::uint64_t done, std::uint64_t total) override {
    if (!terminal_) return;
    clear();
    std::string line = "checking " + std::string(stage);
    if (total > 0) line += " " + percent_text(100.0 * static_cast<double>(done) / static_cast<double>(total));
    else if (done > 0) line += " " + std::to_string(done);
    std::fprintf(stderr, "%s", line.c_str());
    std::fflush(stderr);
    shown_ = true;
  }

  void found(const CheckProblem& problem) override {
    clear();
    if (as_json_) return;
    std::string line = problem.path.empty() ? problem.what : problem.path + ": " + problem.what;
    if (problem.size > 0)
      line += " (bytes " + std::to_string(problem.offset) + " to " + std::to_string(problem.offset + problem.size - 1) + ")";
    std::puts(printable(line + "; " + (problem.repairable ? "repair: " : "") + problem.remedy).c_str());
    std::fflush(stdout);
  }

 private:
  void clear() {
    if (shown_) std::fputs("\r\033[K", stderr);
    shown_ = false;
  }

  const bool as_json_, terminal_;
  bool shown_ = false;
};

json text(const std::string& bytes) {
  return json::parse(json(bytes).dump(-1, ' ', false, json::error_handler_t::replace));
}

json facts_of(const CheckProblem& problem) {
  json facts{{"kind", name_of(problem.kind)}, {"path", text(problem.path)},        {"what", text(problem.what)},
             {"remedy", text(problem.remedy)}, {"repairable", problem.repairable}, {"layer", nullptr},
             {"offset", problem.offset},       {"size", problem.size}};
  if (problem.layer) facts["layer"] = problem.layer->value();
  return facts;
}

bool is_sound(const CheckReport& report) { return report.complete && report.problems.empty(); }

void print_json(const CheckReport& report) {
  json problems = json::array(), unverified = json::array();
  for (const CheckProblem& problem : report.problems) problems.push_back(facts_of(problem));
  for (const Unverified& one : report.unverified) unverified.push_back({{"path", text(one.path)}, {"why", text(one.why)}});
  const json document{{"sound", is_sound(report)},   {"complete", report.complete},       {"repaired", report.repaired},
                      {"problems", problems},        {"unverified", unverified},          {"directories", report.directories},
                      {"images", report.images},     {"symlinks", report.links},          {"layers", report.layers},
                      {"keys", report.keys},         {"blocks_read", report.blocks},      {"bytes_read", report.bytes},
                      {"anchor", report.anchor.empty() ? json(nullptr) : json(report.anchor)}};
  std::puts(document.dump(2).c_str());
}

void print_summary(const CheckReport& report, bool repair) {
  for (const Unverified& one : report.unverified) std::puts(printable(one.path + ": not verified: " + one.why).c_str());
  std::string counted = std::to_string(report.directories) + " directories, " + std::to_string(report.images) + " images";
  if (report.bytes > 0) counted += ", " + bytes_text(report.bytes) + " of data read";
  if (is_sound(report)) {
    std::printf("sound: %s%s\n", counted.c_str(), report.unverified.empty() ? "" : ", but for what was not verified");
  } else {
    std::printf("%s: %ju problems in %s\n", report.repaired ? "repaired" : "damaged", static_cast<std::uintmax_t>(report.problems.size()),
                counted.c_str());
    if (!report.complete) std::puts("not everything could be looked at");
    else if (!repair) std::puts("nothing was changed: --repair repairs what it can");
  }
  if (!report.anchor.empty()) std::printf("anchor: %s\n", report.anchor.c_str());
}

// The directory of a mount that contains the path or, for a store, its mount point; empty for an unmounted store.
Outcome<std::string> mounted_directory(const std::string& absolute) {
  RK_TRY_ASSIGN(std::optional<Mount> mount, mount_of_store(absolute));
  if (mount) return mount->mountpoint;
  if (Engine::unlocked_by(absolute)) return std::string();
  const Descriptor directory(::open(absolute.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory) return unreachable(errno, absolute);
  Outcome<json> session = call_daemon(directory.get(), absolute, {{"command", "session"}});
  if (session) return absolute;
  // A damaged store or no store at all: opening it gives the reason.
  if (session.error().code == ExitCode::not_mounted) return std::string();
  return tl::unexpected(std::move(session).error());
}

Outcome<CheckReport> check_mounted(const std::string& directory, const Options& options, CheckObserver& observer) {
  if (options.repair || options.anchor)
    return fail(ExitCode::busy, "the store is mounted: unmount it first (rekeyfs umount " + directory + ")");
  return read_mount(directory, options.read_data, observer);
}

Outcome<CheckReport> check_store(const std::string& store, const Options& options, CheckObserver& observer) {
  RK_TRY_ASSIGN(Credential credential, credential_for(store, options.unlock));
  CheckOptions wanted;
  wanted.read_data = options.read_data;
  wanted.repair = options.repair;
  wanted.anchor = options.anchor.value_or("");
  RK_TRY_ASSIGN(CheckReport report, Engine::check(store, credential, wanted, observer));
  return report;
}

Outcome<ExitCode> run(const Options& options) {
  if (options.anchor && options.anchor->empty())  // from an empty variable in a script
    return fail(ExitCode::usage, "the anchor is empty: give the text that 'rekeyfs check' printed");
  RK_TRY_ASSIGN(const std::string absolute, absolute_path(options.path));
  RK_TRY_ASSIGN(const std::string mounted, mounted_directory(absolute));
  CheckReport report;
  {
    Screen screen(options.as_json);
    RK_TRY_ASSIGN(report, mounted.empty() ? check_store(absolute, options, screen) : check_mounted(mounted, options, screen));
  }
  if (options.as_json) print_json(report);
  else print_summary(report, options.repair);
  return is_sound(report) || report.repaired ? ExitCode::ok : ExitCode::damaged;
}

}  // namespace

void add_check(CLI::App& parent, Chosen& chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* app = parent.add_subcommand("check", "Verify a store, and repair it");
  app->add_option("PATH", options->path, "A store; or a directory in a mount, which is then read")->required()->type_name("");
  app->add_flag("--read-data", options->read_data, "Read every block of every image");
  app->add_flag("--repair", options->repair, "Repair what can be repaired");
  app->add_option("--anchor", options->anchor, "Compare with what an earlier check printed: is this an older state?")->type_name("TEXT");
  app->add_flag("--json", options->as_json, "Print JSON");
  add_unlock_options(*app, options->unlock);
  chosen.on(*app, [options] { return run(*options); });
}

}  // namespace rekeyfs::tools
