// `rekeyfs umount`: unmounts, and returns when everything is durable and the store is unlocked.
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include "engine/base/child_process.h"
#include "engine/base/descriptor.h"
#include "engine/base/pipe.h"
#include "engine/base/read.h"
#include "tools/commands/command.h"
#include "tools/daemon_call.h"
#include "tools/holders.h"
#include "tools/mounts.h"
#include "tools/process_handle.h"

namespace rekeyfs::tools {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kSilence{5000};  // time without a message while the daemon ends

Outcome<std::string> mountpoint_of(const std::string& path) {
  RK_TRY_ASSIGN(std::string mountpoint, absolute_path(path));
  RK_TRY_ASSIGN(std::optional<Mount> mount, mount_at(mountpoint));
  if (!mount)
    return fail(ExitCode::not_mounted, path + " is not a mount point; give the directory that the store is mounted on");
  if (!mount->is_rekeyfs())
    return fail(ExitCode::not_mounted,
                path + " is a mount of type " + mount->type + ", not a rekeyfs mount; use umount(8)");
  if (!mount->is_whole())
    return fail(ExitCode::not_mounted, path + " is a bind mount of a directory of a rekeyfs mount; use umount(8) for it");
  return mountpoint;
}

// Writes the kernel's dirty pages to the daemon, and then the daemon's data to the disk.
Outcome<void> make_durable(int root, const std::string& mountpoint) {
  if (syncfs(root) != 0) return tl::unexpected<Failure>(error_from_errno(errno, "write back " + mountpoint));
  RK_TRY(call_daemon(root, mountpoint, {{"command", "sync"}}));
  return {};
}

struct Daemon {
  ProcessHandle process;
  Outcome<void> durable;  // requested while the daemon can still report a failure
};

// nullopt if the daemon is dead: then only the mount itself is left.
Outcome<std::optional<Daemon>> prepare_daemon(const std::string& mountpoint) {
  Descriptor root(open(mountpoint.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root && errno == ENOTCONN) return std::nullopt;
  if (!root && errno == EACCES)
    return fail(ExitCode::denied,
                mountpoint + " was mounted by another user without allow_other; unmount it as that user");
  if (!root) return unreachable(errno, mountpoint);
  RK_TRY_ASSIGN(nlohmann::json session, call_daemon(root.get(), mountpoint, {{"command", "session"}}));
  if (!session.at("pid").is_number())
    return fail(ExitCode::denied, mountpoint + " was mounted by another user; that user or root may unmount it");
  RK_TRY_ASSIGN(ProcessHandle process, ProcessHandle::open(session.at("pid").get<pid_t>()));
  return Daemon{std::move(process), make_durable(root.get(), mountpoint)};
}

tl::unexpected<Failure> busy(const std::string& mountpoint) {
  std::string who;
  for (const Holder& holder : holders_of(mountpoint))
    who += (who.empty() ? "" : ", ") + holder.command + " (process " + std::to_string(holder.process) + ")";
  if (who.empty()) who = "a process of another user, or a mount below it";
  return fail(ExitCode::busy,
              mountpoint + " is in use by " + who + ", and was not unmounted: end that use, then run rekeyfs umount again");
}

Outcome<void> unmount_as_root(const std::string& mountpoint) {
  if (umount2(mountpoint.c_str(), UMOUNT_NOFOLLOW) == 0) return {};
  if (errno == EBUSY) return busy(mountpoint);
  return tl::unexpected<Failure>(error_from_errno(errno, "unmount " + mountpoint));
}

struct Ended {
  int status;
  std::string errors;
};

Outcome<Ended> run_fusermount(const std::string& mountpoint) {
  RK_TRY_ASSIGN(Pipe errors, Pipe::create());
  Program fusermount{.command = {"fusermount3", "-u", "--", mountpoint},
                     .descriptors = {Program::kNothing, Program::kNothing, errors.write.get()},
                     // Its message is parsed below.
                     .environment = {{"LC_ALL=C", "PATH=/usr/bin:/bin:/usr/local/bin"}}};
  Result<ChildProcess> child = ChildProcess::start(fusermount);
  if (!child)
    return fail(ExitCode::failure, "fusermount3 cannot be run (" + child.error().message + "); install the package fuse3");
  errors.write.reset();
  Ended ended{0, read_to_end(errors.read.get())};
  ended.status = child->wait();
  while (ended.errors.ends_with('\n')) ended.errors.pop_back();
  return ended;
}

Outcome<void> unmount_as_user(const std::string& mountpoint) {
  RK_TRY_ASSIGN(Ended ended, run_fusermount(mountpoint));
  if (ended.status == 0) return {};
  if (ended.errors.find("busy") != std::string::npos) return busy(mountpoint);
  return fail(ExitCode::failure, "unmount " + mountpoint + ": " + ended.errors);
}

// Waits as long as necessary, because the daemon makes everything durable before it ends.
Outcome<void> wait_for_end(const ProcessHandle& daemon) {
  if (!daemon.ended_within(kSilence)) {
    if (isatty(STDERR_FILENO)) std::fputs("rekeyfs: unmounted; waiting until all data is durable\n", stderr);
    while (!daemon.ended_within(milliseconds(60'000))) {
    }
  }
  std::optional<int> code = daemon.exit_code();
  if (code.value_or(0) != 0)
    return fail(ExitCode::not_durable, "unmounted, but the daemon ended with code " + std::to_string(*code) +
                                           ": the latest changes may not be durable; see the daemon's log");
  return {};
}

Outcome<ExitCode> run(const std::string& path) {
  RK_TRY_ASSIGN(std::string mountpoint, mountpoint_of(path));
  RK_TRY_ASSIGN(std::optional<Daemon> daemon, prepare_daemon(mountpoint));
  RK_TRY(geteuid() == 0 ? unmount_as_root(mountpoint) : unmount_as_user(mountpoint));
  if (!daemon) return ExitCode::ok;
  Outcome<void> ended = wait_for_end(daemon->process);
  if (!daemon->durable)
    return fail(ExitCode::not_durable,
                "unmounted, but the latest changes may not be durable: " + daemon->durable.error().message);
  RK_TRY(ended);
  return ExitCode::ok;
}

}  // namespace

void add_umount(CLI::App& parent, Chosen& chosen) {
  auto mountpoint = std::make_shared<std::string>();
  CLI::App* app = parent.add_subcommand("umount", "Finish pending writes and unmount");
  app->add_option("MOUNTPOINT", *mountpoint, "The directory that the store is mounted on")->required()->type_name("");
  chosen.on(*app, [mountpoint] { return run(*mountpoint); });
}

}  // namespace rekeyfs::tools
