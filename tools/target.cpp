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
  MountedTarget(std::string directory, std::string name) : directory_(std::move(directory)), name_(std::move(name)) {}

  // Opened for each call, so that a long wait does not keep the mount busy.
  Outcome<json> call(json request) override {
    Descriptor directory(::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!directory) return unreachable(errno, directory_);
    if (!name_.empty()) fs::put_name(request, name_);
    return call_daemon(directory.get(), directory_, request);
  }

 private:
  const std::string directory_;
  const std::string name_;  // of an image or link in the directory; empty for the directory itself
};

class StoreTarget : public Target {
 public:
  explicit StoreTarget(std::unique_ptr<Engine> engine) : engine_(std::move(engine)) {}
  ~StoreTarget() override {
    if (engine_) static_cast<void>(engine_->close());  // the command only read facts
  }

  Outcome<json> call(json request) override {
    RK_TRY_ASSIGN(json answer,
                  fs::read_answer(fs::serve_command(*engine_, Caller{getuid(), getgid(), true}, kRootIno, request)));
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
  RK_TRY_ASSIGN(std::string absolute, absolute_path(path));
  std::filesystem::path parts(absolute);
  bool directory = is_directory(absolute);
  std::string place = directory ? absolute : parts.parent_path().string();
  RK_TRY_ASSIGN(bool mounted, is_mounted(place));
  if (mounted) return std::make_unique<MountedTarget>(place, directory ? std::string() : parts.filename().string());
  if (!directory) return neither(path);
  RK_TRY_ASSIGN(std::optional<Mount> mount, mount_of_store(absolute));
  if (mount) return std::make_unique<MountedTarget>(mount->mountpoint, std::string());
  Outcome<std::unique_ptr<Target>> store = open_store(absolute, unlock, filling);
  if (!store && store.error().code == ExitCode::not_a_store) return neither(path);
  return store;
}

}  // namespace rekeyfs::tools
