#include "tools/mount_store.h"

#include <cerrno>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/descriptor.h"
#include "engine/base/log.h"
#include "engine/engine.h"
#include "fs/mount.h"
#include "tools/daemon.h"
#include "tools/journal.h"
#include "tools/log_target.h"
#include "tools/mounts.h"
#include "tools/sandbox.h"

namespace rekeyfs::tools {
namespace {

// The paths are resolved in that namespace.
Outcome<void> enter_namespace(const MountRequest& request) {
  if (request.mount_namespace.empty()) return {};
  const Descriptor file(open(request.mount_namespace.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file || setns(file.get(), CLONE_NEWNS) != 0)
    return tl::unexpected<Failure>(error_from_errno(errno, "enter the mount namespace " + request.mount_namespace));
  return {};
}

// Merges the files given after -o with those of the command's own options.
Outcome<void> merge_unlock(MountRequest& request) {
  UnlockOptions& unlock = request.unlock;
  if (request.options.key_file) unlock.key_file = *request.options.key_file;
  if (request.options.passphrase_file) unlock.passphrase_file = *request.options.passphrase_file;
  if (!unlock.key_file.empty() && !unlock.passphrase_file.empty())
    return fail(ExitCode::usage, "--key-file and --passphrase-file exclude each other; give one of them");
  return {};
}

bool is_inside(const std::string& path, const std::string& directory) {
  return path == directory || path.starts_with(directory + "/");
}

// Makes every path absolute, because the daemon changes its working directory.
Outcome<void> check_places(MountRequest& request) {
  RK_TRY_ASSIGN(request.store, absolute_path(request.store));
  if (Status status = fs::check_mountpoint(request.mountpoint); !status)
    return fail(ExitCode::bad_mountpoint, describe(status.error()));
  RK_TRY_ASSIGN(request.mountpoint, absolute_path(request.mountpoint));
  if (is_inside(request.mountpoint, request.store) || is_inside(request.store, request.mountpoint))
    return fail(ExitCode::bad_mountpoint, "the mount point " + request.mountpoint + " and the store " + request.store +
                                              " are nested; choose a mount point outside the store");
  return {};
}

Outcome<void> direct_log(const MountRequest& request) {
  if (request.options.log) return log_to_file(*request.options.log);
  if (request.foreground)
    log_to_stderr(LogDetail::everything);
  else
    log_to_syslog();
  return {};
}

Outcome<void> serve(const MountRequest& request, std::optional<Credential>& credential,
                    const std::function<void()>& ready) {
  RK_TRY(direct_log(request));
  RK_TRY(drop_privileges(request.store));
  OpenOptions open_options;
  open_options.read_only = request.options.read_only;
  open_options.user_keys = request.options.user_keys;
  RK_TRY_ASSIGN(std::unique_ptr<Engine> engine, Engine::open(request.store, *credential, open_options));
  credential.reset();  // wipes the secret, which is not needed any more
  Journal journal(*engine);
  journal.start();
  fs::MountOptions mount;
  mount.mountpoint = request.mountpoint;
  mount.fsname = request.store;
  mount.read_only = request.options.read_only;
  mount.no_exec = request.options.no_exec;
  mount.writeback_cache = request.options.writeback_cache;
  mount.hot_memory = request.options.hot_memory;
  mount.hot_idle = request.options.hot_idle;
  mount.allow_other = request.options.allow_other || geteuid() == 0;
  bool mounted = false;
  Status served = fs::serve(*engine, mount, [&] {
    mounted = true;
    if (Outcome<void> refused = refuse_system_calls(); !refused)  // a kernel without filters mounts nevertheless
      log::warn("the daemon runs without its system call filter: {}", refused.error().message);
    log::info("mounted {} on {}", request.store, request.mountpoint);
    ready();
  });
  engine->stop();
  journal.stop();
  Status closed = engine->close();
  if (!served && !mounted) return fail(ExitCode::bad_mountpoint, describe(served.error()));
  RK_TRY(served);
  RK_TRY(closed);
  log::info("unmounted {}; the store {} is closed", request.mountpoint, request.store);
  return {};
}

// Errors go to the log, which includes stderr until the daemon detaches; afterwards the log is the only place.
ExitCode serve_and_report(const MountRequest& request, std::optional<Credential>& credential,
                          const std::function<void()>& ready) {
  Outcome<void> served = serve(request, credential, ready);
  if (served) return ExitCode::ok;
  log::error("{}", served.error().message);
  return served.error().code;
}

}  // namespace

Outcome<ExitCode> mount_store(MountRequest request) {
  RK_TRY(enter_namespace(request));
  RK_TRY(merge_unlock(request));
  RK_TRY(check_places(request));
  if (request.options.hot_memory > 0 && geteuid() != 0)
    return fail(ExitCode::usage, "the mount option hot needs root: mount as root or without it");
  RK_TRY_ASSIGN(Credential unlocked, credential_for(request.store, request.unlock));
  if (request.only_check) return ExitCode::ok;
  // Fails only if the working directory is unreadable; opening the file then reports the error.
  std::error_code ignored;
  if (request.options.log) request.options.log = std::filesystem::absolute(*request.options.log, ignored).string();
  umask(077);  // files that the daemon creates in the store are accessible to its owner only
  std::optional<Credential> credential(std::move(unlocked));
  auto body = [&](const std::function<void()>& ready) { return serve_and_report(request, credential, ready); };
  return request.foreground ? body([] {}) : run_daemon(body);
}

}  // namespace rekeyfs::tools
