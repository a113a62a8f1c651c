#include "tools/target.h"

#include <cerrno>
#include <filesystem>
#include <optional>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/descriptor.h"
#include "engine/engine.h"
#include "fs/control.h"
#include "tools/daemon_call.h"
#include "tools/mounts.h"

namespace rekeyfs::tools {
namespace {

using nlohmann::json;

class MountedTarget : public Target {
 public:
  explicit MountedTarget(Way way) : way_(std::move(way)) {}

  // Opened for each call, so that a long wait does not keep the mount busy.
  Outcome<json> call(json request) override {
    Descriptor directory(::open(way_.directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!directory) return unreachable(errno, way_.directory);
    if (!way_.path.empty() && !request.contains("path")) fs::put_path(request, way_.path);
    return call_daemon(directory.get(), way_.directory, request);
  }

 private:
  const Way way_;
};

class StoreTarget : public Target {
 public:
  explicit StoreTarget(std::unique_ptr<Engine> engine) : engine_(std::move(engine)) {}
  ~StoreTarget() override {
    if (engine_) static_cast<void>(engine_->close());  // the command only read facts
  }

  Outcome<json> call(json request) override {
    RK_TRY_ASSIGN(json answer,
                  fs::read_answer(fs::serve_command(*engine_, fs::Requester{Caller{getuid(), getgid(), true}, {}, kRootIno}, request)));
    return answer;
  }

  Outcome<void> close() override {
    Status closed = engine_->close();
    engine_.reset();
    RK_TRY(closed);
    return {};
  }

 private:
  std::unique_ptr<Engine> engine_;
};

Outcome<std::unique_ptr<Target>> open_store(const std::string& store, const UnlockOptions& unlock, Filling filling) {
  RK_TRY_ASSIGN(Credential credential, credential_for(store, unlock));
  OpenOptions options;
  if (filling == Filling::pause) options.filler_workers = 0;
  RK_TRY_ASSIGN(std::unique_ptr<Engine> engine, Engine::open(store, credential, options));
  return std::make_unique<StoreTarget>(std::move(engine));
}

// Whether a daemon answers behind `directory`.
Outcome<bool> is_mounted(const std::string& directory) {
  Descriptor open_directory(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!open_directory) return unreachable(errno, directory);
  Outcome<json> session = call_daemon(open_directory.get(), directory, {{"command", "session"}});
  if (session) return true;
  if (session.error().code == ExitCode::not_mounted) return false;
  return tl::unexpected(std::move(session).error());
}

// The first way whose directory may be opened, if a daemon answers there. An error if none may.
Outcome<std::optional<Way>> open_way(const std::string& path) {
  RK_TRY_ASSIGN(const std::vector<Way> ways, ways_to(path));
  for (const Way& way : ways) {
    if (&way != &ways.back() && access(way.directory.c_str(), R_OK) != 0 && errno == EACCES) continue;
    RK_TRY_ASSIGN(const bool answers, is_mounted(way.directory));
    return answers ? std::optional(way) : std::nullopt;
  }
  return std::nullopt;
}

bool is_directory(const std::string& path) {
  struct stat facts {};
  return stat(path.c_str(), &facts) == 0 && S_ISDIR(facts.st_mode);
}

tl::unexpected<Failure> neither(const std::string& path) {
  return fail(ExitCode::not_mounted,
              path +
                  " is neither in a rekeyfs mount nor a store; give a path inside a mount, or a store that "
                  "is not mounted (rekeyfs init creates one)");
}

}  // namespace

Outcome<std::unique_ptr<Target>> Target::open(const std::string& path, const UnlockOptions& unlock, Filling filling) {
  RK_TRY_ASSIGN(const std::string absolute, absolute_path(path));
  RK_TRY_ASSIGN(const std::optional<Way> way, open_way(absolute));
  if (way) return std::make_unique<MountedTarget>(*way);
  if (!is_directory(absolute)) return neither(path);
  RK_TRY_ASSIGN(const std::optional<Mount> mount, mount_of_store(absolute));
  if (mount) return std::make_unique<MountedTarget>(Way{mount->mountpoint, ""});
  Outcome<std::unique_ptr<Target>> store = open_store(absolute, unlock, filling);
  if (!store && store.error().code == ExitCode::not_a_store) return neither(path);
  return store;
}

}  // namespace rekeyfs::tools
