// `rekeyfs replicate`: copies one image within a mount, with an explicit choice of the target's key.
//
// It creates the target and copies with copy_file_range(2), as cp(1) does, so that the kernel checks permissions.
// Between the two it sends the choices that the directory's policy would otherwise make to the daemon, through the new
// file's descriptor. With --plain the target may be an encrypted image, whose content is then replaced, again as cp(1)
// does.
#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "engine/base/descriptor.h"
#include "fs/control.h"
#include "tools/columns.h"
#include "tools/commands/command.h"
#include "tools/daemon_call.h"
#include "tools/human.h"
#include "tools/mounts.h"
#include "tools/watch.h"

namespace rekeyfs::tools {
namespace {

using nlohmann::json;

struct Options {
  std::string source, target;
  std::optional<std::string> description;
  std::string key;
  bool plain = false, fast_create = false, wait = false, dry_run = false, as_json = false;
};

tl::unexpected<Failure> failed_to(const std::string& what) {
  return tl::unexpected<Failure>(error_from_errno(errno, what));
}

// --- the two ends ----------------------------------------------------------------------------------------------

struct Source {
  Descriptor file;
  std::string path;  // absolute
  std::string name;  // as given on the command line
  struct stat facts {};
};

Outcome<Source> open_source(const std::string& path) {
  Source source;
  RK_TRY_ASSIGN(source.path, absolute_path(path));
  source.name = std::filesystem::path(path).filename().string();
  // O_NONBLOCK, so that a pipe of that name does not block.
  source.file = Descriptor(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!source.file || fstat(source.file.get(), &source.facts) != 0) return failed_to("open " + path);
  if (!S_ISREG(source.facts.st_mode)) return fail(ExitCode::usage, path + " is not an image: give a regular file");
  RK_TRY(call_daemon(source.file.get(), path, {{"command", "session"}}));
  return source;
}

struct Place {
  Descriptor directory;
  std::string directory_path;  // absolute
  std::string name;
  std::string path() const { return (std::filesystem::path(directory_path) / name).string(); }
};

// The new name: DST or, if DST is a directory, the source's name in it.
Outcome<Place> find_place(const std::string& target, const Source& source) {
  struct stat facts {};
  const bool into = stat(target.c_str(), &facts) == 0 && S_ISDIR(facts.st_mode);
  const std::filesystem::path given(target);
  Place place;
  place.name = into ? source.name : given.filename().string();
  if (place.name.empty()) return fail(ExitCode::not_found, "the directory " + target + " does not exist");
  const std::string directory = into ? target : given.has_parent_path() ? given.parent_path().string() : ".";
  RK_TRY_ASSIGN(place.directory_path, absolute_path(directory));
  place.directory = Descriptor(open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!place.directory || fstat(place.directory.get(), &facts) != 0) return failed_to("open the directory " + directory);
  if (facts.st_dev != source.facts.st_dev)
    return fail(ExitCode::usage, place.path() + " is not in the mount of " + source.path +
                                     ": an image is replicated within a mount; use cp to bring it in or out");
  return place;
}

// What has the new name already.
std::optional<struct stat> facts_of_taken(const Place& place) {
  struct stat facts {};
  if (fstatat(place.directory.get(), place.name.c_str(), &facts, AT_SYMLINK_NOFOLLOW) != 0) return std::nullopt;
  return facts;
}

// Whether the copy replaces the content of another image, an encrypted one, by plain content.
bool replaces(const Options& options, const Source& source, const Place& place) {
  if (!options.plain || options.fast_create) return false;
  const auto facts = facts_of_taken(place);
  char value[4] = {};
  return facts && S_ISREG(facts->st_mode) && facts->st_ino != source.facts.st_ino &&
         getxattr(place.path().c_str(), "user.rekeyfs.encryption", value, sizeof value) == 3 && std::string(value, 3) == "kms";
}

std::optional<Error> taken(const Options& options, const Source& source, const Place& place) {
  if (!facts_of_taken(place) || replaces(options, source, place)) return std::nullopt;
  return Error{Errc::exists, place.path() + " exists already: choose another name, or remove it first"};
}

// --- what to ask the daemon ------------------------------------------------------------------------------------

json with_choice(json request, const Options& options) {
  if (options.fast_create) request["fast_create"] = true;
  if (options.plain) request["plain"] = true;
  if (!options.key.empty()) request["key"] = options.key;
  return request;
}

// Names the target's directory to the daemon. It need not be readable, so the command comes through one above it, which
// must stay open as long as the token is used.
struct Named {
  Descriptor through;
  std::string token;
};

Outcome<Named> name_directory(const Place& place) {
  RK_TRY_ASSIGN(const std::vector<Way> ways, ways_to(place.directory_path));
  for (const Way& way : ways) {
    Named named{Descriptor(open(way.directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)), ""};
    if (!named.through) continue;
    json request{{"command", "token"}};
    if (!way.path.empty()) fs::put_path(request, way.path);
    RK_TRY_ASSIGN(const json answer, call_daemon(named.through.get(), way.directory, request));
    named.token = answer.value("token", "");
    return named;
  }
  return fail(ExitCode::denied, "no directory above " + place.path() + " in the mount can be read");
}

Outcome<json> ask_plan(const Options& options, const Source& source, const Place& place) {
  RK_TRY_ASSIGN(const Named directory, name_directory(place));
  return call_daemon(source.file.get(), source.path,
                     with_choice({{"command", "plan"}, {"directory", directory.token}, {"estimate", options.dry_run}}, options));
}

std::string key_text(const json& facts, const char* member) {
  std::string key = facts.value(member, "");
  return key.empty() ? "plain" : key;
}

std::string how_text(const json& plan) {
  if (plan.at("format").is_string()) return "transform, as the disk in a file of format " + plan.at("format").get<std::string>();
  return plan.at("transforms") ? "transform" : "clone";
}

std::string change_text(const json& plan) {
  return plan.at("transforms") ? key_text(plan, "key_before") + " -> " + key_text(plan, "key_after")
                               : key_text(plan, "key_after") + ", as the source";
}

json facts_of(const Source& source, const Place& place, const json& plan) {
  json facts = plan;
  facts["source"] = source.path;
  facts["target"] = place.path();
  return facts;
}

void print_json(const json& facts) {
  std::puts(facts.dump(2, ' ', false, json::error_handler_t::replace).c_str());
}

// --- the copy --------------------------------------------------------------------------------------------------

// The image that the copy becomes; the destructor deletes it unless it is kept or was there before.
class NewImage {
 public:
  NewImage(const Place& place, Descriptor file, bool was_there) : place_(place), file_(std::move(file)), was_there_(was_there) {}
  NewImage(const NewImage&) = delete;
  NewImage& operator=(const NewImage&) = delete;
  ~NewImage() {
    if (!file_ || was_there_) return;
    struct stat mine {}, named {};
    const bool known = fstat(file_.get(), &mine) == 0;
    file_.reset();  // after a refusal the daemon deletes the image here
    if (known && fstatat(place_.directory.get(), place_.name.c_str(), &named, AT_SYMLINK_NOFOLLOW) == 0 &&
        named.st_ino == mine.st_ino)
      unlinkat(place_.directory.get(), place_.name.c_str(), 0);
  }

  int file() const { return file_.get(); }
  bool was_there() const { return was_there_; }
  Outcome<json> call(const json& request) const { return call_daemon(file_.get(), place_.path(), request); }
  void keep() { file_.reset(); }

 private:
  const Place& place_;
  Descriptor file_;
  const bool was_there_;
};

// The full reason if the daemon refused a change through this handle.
Failure reason(const NewImage& image, const std::string& what) {
  const Error plain = error_from_errno(errno, what);
  const Outcome<json> answer = image.call({{"command", "refusal"}});
  if (!answer || !answer->at("refusal").is_object()) return plain;
  return Error{plain.code, answer->at("refusal").value("message", "")};
}

// open(2) returns only errno; the plan, which was made just before, may contain the rule behind it.
Failure reason_by_plan(const json& plan, const std::string& what) {
  const Error plain = error_from_errno(errno, what);
  for (const json& refusal : plan.at("refusals"))
    if (refusal.value("code", "") == name_of(plain.code)) return Error{plain.code, refusal.value("message", "")};
  return plain;
}

Outcome<void> choose_target(const Options& options, const Source& source, const NewImage& image) {
  if (!options.plain && options.key.empty() && !options.fast_create) return {};
  RK_TRY(image.call(with_choice({{"command", "choose"}}, options)));
  if (!options.plain || image.was_there()) return {};
  // An image in a directory with a key was created with owner permissions only.
  const mode_t mask = umask(0);
  umask(mask);
  if (fchmod(image.file(), source.facts.st_mode & 0777 & ~mask) != 0) return failed_to("set the permissions of the copy");
  return {};
}

Outcome<void> describe_it(const Options& options, const NewImage& image) {
  if (!options.description) return {};
  if (fsetxattr(image.file(), "user.xdg.comment", options.description->data(), options.description->size(), 0) != 0)
    return failed_to("set the description");
  return {};
}

Outcome<void> copy_all(const Source& source, const NewImage& image, Interrupt& interrupt) {
  constexpr std::size_t kAll = std::size_t{1} << 40;  // the kernel splits it into pieces for the daemon
  while (!interrupt.came_within(std::chrono::milliseconds(0))) {
    const ssize_t copied = copy_file_range(source.file.get(), nullptr, image.file(), nullptr, kAll, 0);
    if (copied < 0) return tl::unexpected(reason(image, "replicate " + source.path));
    if (copied == 0) return {};
  }
  return fail(ExitCode::failure, "interrupted");
}

// The image's status after all data is written. Closes a duplicate descriptor, because only a flushed image counts as
// complete.
Outcome<std::string> finish(NewImage& image) {
  Descriptor(dup(image.file())).reset();
  RK_TRY_ASSIGN(json progress, image.call({{"command", "progress"}}));
  image.keep();
  return progress.value("status", "");
}

Outcome<json> wait(const Options& options, const Place& place, Interrupt& interrupt) {
  RK_TRY_ASSIGN(std::unique_ptr<Target> target, Target::open(place.path(), {}));
  const bool with_bars = !options.as_json && isatty(STDOUT_FILENO) == 1;
  return with_bars ? watch(*target, interrupt, Until::settled) : wait_until_settled(*target, interrupt);
}

void print_made(const Source& source, const Place& place, const json& plan) {
  const std::string text = (plan.at("transforms") ? "replicating " : "cloned ") + source.path + " to " + place.path() + " (" +
                           change_text(plan) + ", " + bytes_text(plan.at("size").get<std::uint64_t>()) + ")";
  std::puts(printable(text).c_str());
  std::fflush(stdout);
}

Outcome<ExitCode> replicate(const Options& options, const Source& source, const Place& place) {
  Interrupt interrupt;  // so that Ctrl-C takes effect only after the copy is undone or finished
  RK_TRY_ASSIGN(const json plan, ask_plan(options, source, place));
  std::string status;
  {
    const bool was_there = replaces(options, source, place);
    const int how = was_there ? O_TRUNC | O_NOFOLLOW : O_CREAT | O_EXCL;
    const int made = openat(place.directory.get(), place.name.c_str(), how | O_WRONLY | O_CLOEXEC, source.facts.st_mode & 0777);
    if (made < 0) return tl::unexpected(reason_by_plan(plan, (was_there ? "replace " : "create ") + place.path()));
    NewImage image(place, Descriptor(made), was_there);
    RK_TRY(choose_target(options, source, image));
    if (!was_there) RK_TRY(describe_it(options, image));
    RK_TRY(copy_all(source, image, interrupt));
    if (was_there) RK_TRY(describe_it(options, image));  // a failure here must not cost the old content
    RK_TRY_ASSIGN(status, finish(image));
  }
  if (!options.as_json) print_made(source, place, plan);
  ExitCode code = ExitCode::ok;
  if (options.wait) {
    RK_TRY_ASSIGN(const json last, wait(options, place, interrupt));
    code = verdict(last, Until::settled);
    status = last.value("status", "");
    if (!options.as_json) std::printf("%s is %s\n", printable(place.path()).c_str(), status.c_str());
  }
  if (options.as_json) {
    json facts = facts_of(source, place, plan);
    facts.erase("refusals");
    facts["status"] = status;
    print_json(facts);
  }
  return code;
}

// --- the dry run -----------------------------------------------------------------------------------------------

// The errors that the kernel would report before asking the daemon.
std::vector<Error> refusals_of_the_name(const Options& options, const Source& source, const Place& place) {
  std::vector<Error> refusals;
  if (std::optional<Error> exists = taken(options, source, place)) refusals.push_back(*exists);
  char value[2] = {};
  if (getxattr(place.path().c_str(), "user.rekeyfs.protected", value, sizeof value) == 1 && value[0] == '1')
    refusals.push_back({Errc::not_permitted, "the image there is protected: remove user.rekeyfs.protected first"});
  const bool replacing = replaces(options, source, place);
  const std::string& written = replacing ? place.path() : place.directory_path;
  if (faccessat(AT_FDCWD, written.c_str(), replacing ? W_OK : W_OK | X_OK, AT_EACCESS) != 0)
    refusals.push_back(error_from_errno(errno, replacing ? "replace " + written : "create a file in " + written));
  return refusals;
}

std::vector<Error> all_refusals(const Options& options, const Source& source, const Place& place, const json& plan) {
  std::vector<Error> all = refusals_of_the_name(options, source, place);
  for (const json& refusal : plan.at("refusals"))
    all.push_back({fs::reason_named(refusal.value("code", "")).value_or(Errc::not_permitted), refusal.value("message", "")});
  return all;
}

std::string errno_text(Errc code) {
  const char* name = strerrorname_np(errno_of(code));
  return name != nullptr ? name : std::to_string(errno_of(code));
}

std::optional<double> seconds_of(const json& plan) {
  const double rate = plan.value("bytes_per_second", 0.0);
  if (!plan.at("transforms").get<bool>() || rate <= 0) return std::nullopt;
  return plan.at("bytes_to_transform").get<double>() / rate;
}

std::string time_text(const json& plan) {
  if (!plan.at("transforms").get<bool>()) return "none: a clone shares the source's blocks";
  const std::optional<double> seconds = seconds_of(plan);
  if (!seconds) return "unknown: nothing of it could be measured";
  const char* from = plan.value("rate_from", "") == "recent"
                         ? "as the latest replications in this store"
                         : "measured now: reading, decrypting and encrypting with one thread, without writing";
  return "about " + duration_text(*seconds) + " at " + rate_text(plan.value("bytes_per_second", 0.0)) + ", " + from;
}

void print_fact(const char* name, const std::string& value) {
  std::printf("%s%s\n", pad(name, 14).c_str(), printable(value).c_str());
}

void print_plan(const json& facts, const std::vector<Error>& refusals) {
  auto bytes = [&](const char* member) { return facts.at(member).get<std::uint64_t>(); };
  print_fact("source", facts.value("source", ""));
  print_fact("target", facts.value("target", ""));
  print_fact("how", how_text(facts));
  print_fact("keys", change_text(facts));
  print_fact("size", bytes_text(bytes("size")));
  print_fact("to transform", "at most " + bytes_text(bytes("bytes_to_transform")));
  print_fact("space", "at most " + bytes_text(bytes("space_needed")) + " needed, " + bytes_text(bytes("space_available")) +
                          " available" + (bytes("space_needed") > bytes("space_available") ? ": NOT ENOUGH" : ""));
  print_fact("time", time_text(facts));
  for (const Error& refused : refusals) print_fact("refused", errno_text(refused.code) + ": " + refused.message);
}

Outcome<ExitCode> dry_run(const Options& options, const Source& source, const Place& place) {
  RK_TRY_ASSIGN(const json plan, ask_plan(options, source, place));
  const std::vector<Error> refusals = all_refusals(options, source, place, plan);
  json facts = facts_of(source, place, plan);
  if (options.as_json) {
    const std::optional<double> seconds = seconds_of(plan);
    facts["seconds"] = seconds ? json(*seconds) : json(nullptr);
    facts["refusals"] = json::array();
    for (const Error& refused : refusals)
      facts["refusals"].push_back(
          {{"code", name_of(refused.code)}, {"errno", errno_text(refused.code)}, {"message", refused.message}});
    print_json(facts);
  } else {
    print_plan(facts, refusals);
  }
  return refusals.empty() ? ExitCode::ok : exit_code_of(refusals.front().code);
}

Outcome<ExitCode> run(const Options& options) {
  RK_TRY_ASSIGN(const Source source, open_source(options.source));
  RK_TRY_ASSIGN(const Place place, find_place(options.target, source));
  if (options.dry_run) return dry_run(options, source, place);
  if (std::optional<Error> exists = taken(options, source, place)) return tl::unexpected<Failure>(*exists);
  return replicate(options, source, place);
}

}  // namespace

void add_replicate(CLI::App& parent, Chosen& chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* app = parent.add_subcommand("replicate", "Copy an image within a mount, with everything said explicitly");
  app->add_option("SRC", options->source, "An image")->required()->type_name("");
  app->add_option("DST", options->target, "A new name, or a directory")->required()->type_name("");
  app->add_option("--description", options->description, "Describe the copy (user.xdg.comment)")->type_name("TEXT");
  CLI::Option* key = app->add_option("--key", options->key, "Encrypt the copy with this key, whatever its directory says");
  CLI::Option* plain = app->add_flag("--plain", options->plain, "Do not encrypt the copy, whatever its directory says");
  key->type_name("ALIAS")->excludes(plain);
  app->add_flag("--fast-create", options->fast_create, "Make the copy the disk in the image, whatever its directory says");
  CLI::Option* wait = app->add_flag("--wait", options->wait, "Return when the copy needs its source no more");
  app->add_flag("--dry-run", options->dry_run, "Change nothing; say what would happen")->excludes(wait);
  app->add_flag("--json", options->as_json, "Print JSON");
  chosen.on(*app, [options] { return run(*options); });
}

}  // namespace rekeyfs::tools
