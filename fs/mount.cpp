#include "fs/mount.h"

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "engine/base/log.h"
#include "fs/context.h"
#include "fs/fuse_api.h"
#include "fs/mountinfo.h"
#include "fs/operations.h"
#include "fs/readahead.h"
#include "fs/session_loop.h"
#include "fs/stop_signals.h"
#include "fs/unmount.h"

namespace rekeyfs::fs {
namespace {

void log_from_libfuse(fuse_log_level level, const char* format, va_list arguments) {
  char line[1024];
  std::vsnprintf(line, sizeof(line), format, arguments);
  std::string_view text(line);
  while (text.ends_with('\n')) text.remove_suffix(1);
  if (level <= FUSE_LOG_ERR) {
    log::error("{}", text);
  } else if (level <= FUSE_LOG_NOTICE) {
    log::warn("{}", text);
  } else {
    log::debug("{}", text);
  }
}

// A comma ends a value in a list of mount options unless it is preceded by a backslash.
std::string escape_option(const std::string& value) {
  std::string out;
  for (char c : value) {
    if (c == ',' || c == '\\') out.push_back('\\');
    out.push_back(c);
  }
  return out;
}

std::string mount_options(const MountOptions& options) {
  std::string out = "default_permissions,subtype=rekeyfs,fsname=" + escape_option(options.fsname);
  if (options.allow_other) out += ",allow_other";
  if (options.read_only) out += ",ro";
  if (options.no_exec) out += ",noexec";
  return out;
}

struct SessionDeleter {
  void operator()(fuse_session* session) const { fuse_session_destroy(session); }
};
using SessionPtr = std::unique_ptr<fuse_session, SessionDeleter>;

SessionPtr new_session(Context& context) {
  std::string name = "rekeyfs", flag = "-o", options = mount_options(context.options);
  char* arguments[] = {name.data(), flag.data(), options.data(), nullptr};
  fuse_args args = FUSE_ARGS_INIT(3, arguments);
  const fuse_lowlevel_ops table = operations();
  SessionPtr session(fuse_session_new(&args, &table, sizeof(table), &context));
  fuse_opt_free_args(&args);
  return session;
}

ssize_t receive(int descriptor, void* buffer, std::size_t size, void* userdata) {
  return static_cast<Context*>(userdata)->device.receive(descriptor, buffer, size);
}

ssize_t send(int descriptor, iovec* pieces, int count, void* userdata) {
  return static_cast<Context*>(userdata)->device.send(descriptor, pieces, count);
}

// A mounted session. Its destructor unmounts it, or detaches it if it is in use.
class Mounted {
 public:
  static Result<std::unique_ptr<Mounted>> create(fuse_session* session, const std::string& mountpoint) {
    if (!mount(session, mountpoint))
      return fail(Errc::io,
                  "cannot mount at " + mountpoint +
                      ": the lines above say why; check that /dev/fuse can be opened, that you own the mount "
                      "point, and for allow_other that /etc/fuse.conf has user_allow_other");
    auto mounted = std::unique_ptr<Mounted>(new Mounted(session));
    const fuse_custom_io io{.writev = send, .read = receive, .splice_receive = nullptr, .splice_send = nullptr};
    if (fuse_session_custom_io(session, &io, fuse_session_fd(session)) != 0)
      return fail(Errc::no_memory, "out of memory for the session at " + mountpoint);
    return mounted;
  }
  ~Mounted() { fuse_session_unmount(session_); }
  Mounted(const Mounted&) = delete;
  Mounted& operator=(const Mounted&) = delete;

 private:
  explicit Mounted(fuse_session* session) : session_(session) {}

  static bool mount(fuse_session* session, const std::string& mountpoint) {
    const StopSignals::Hold hold;  // fusermount3 must not be killed between mounting and passing on the device
    return fuse_session_mount(session, mountpoint.c_str()) == 0;
  }

  fuse_session* const session_;
};

// The thread beside the loop: reports that the mount answers, then waits for the signal to stop.
class Attendant {
 public:
  Attendant(Context& context, SessionLoop& loop, StopSignals& signals, std::string mountpoint,
            std::function<void()> ready)
      : context_(context),
        loop_(loop),
        signals_(signals),
        mountpoint_(std::move(mountpoint)),
        ready_(std::move(ready)),
        thread_([this] { run(); }) {}
  ~Attendant() { thread_.join(); }
  Attendant(const Attendant&) = delete;
  Attendant& operator=(const Attendant&) = delete;

  void loop_has_ended() {
    loop_ended_.store(true);
    signals_.release();
  }

 private:
  void run() {
    announce();
    signals_.wait();
    if (!loop_ended_.load()) stop();
  }

  // The mount is usable now: requests before the answer to INIT wait in the kernel. The mount itself is not accessed
  // here, because a thread that waits for an answer of its own process cannot be killed, and would keep the store
  // locked.
  void announce() {
    if (const auto mounts = list_mounts())
      for (const MountEntry& mount : *mounts)
        if (mount.mountpoint == mountpoint_) raise_readahead(mount.device);
    ready_();
  }

  void stop() {
    if (unmount_if_unused(mountpoint_)) return;  // the loop's read then fails, and the loop ends
    if (loop_ended_.load()) return;              // it was unmounted by another process
    log::warn("{} is in use: it is detached, and the processes that use it get errors", mountpoint_);
    write_back(mountpoint_, paths_open_for_writing());
    context_.hot.withdraw_all();
    // A notification that waits for a request would wait forever when requests are no longer served.
    context_.notifier.stop();
    loop_.end();
  }

  std::vector<std::string> paths_open_for_writing() {
    std::vector<std::string> paths;
    for (const Ino image : context_.handles.open_for_writing()) paths.push_back(context_.engine.names().path_of(image));
    return paths;
  }

  Context& context_;
  SessionLoop& loop_;
  StopSignals& signals_;
  const std::string mountpoint_;
  const std::function<void()> ready_;
  std::atomic<bool> loop_ended_{false};
  std::thread thread_;  // declared last, because it uses the members above
};

Result<std::string> resolve(const std::string& path) {
  const std::unique_ptr<char, decltype(&std::free)> resolved(::realpath(path.c_str(), nullptr), &std::free);
  if (!resolved) return fail(error_from_errno(errno, "examine the mount point " + path));
  return std::string(resolved.get());
}

// Sets the engine's observer; the destructor clears it before the observer is destroyed.
class Observing {
 public:
  Observing(Engine& engine, Observer& observer) : engine_(engine) { engine_.set_observer(&observer); }
  ~Observing() { engine_.set_observer(nullptr); }
  Observing(const Observing&) = delete;
  Observing& operator=(const Observing&) = delete;

 private:
  Engine& engine_;
};

}  // namespace

Status serve(Engine& engine, const MountOptions& options, std::function<void()> ready) {
  fuse_set_log_func(log_from_libfuse);
  // The daemon may change its working directory while it serves, so a relative path would change its meaning.
  RK_TRY_ASSIGN(const std::string mountpoint, resolve(options.mountpoint));
  Context context{engine, options};
  const SessionPtr session = new_session(context);
  if (!session) return fail(Errc::invalid, "libfuse refused the mount options; the lines above say which");
  context.notifier.start(session.get());
  const Observing observing(engine, context.notifier);
  StopSignals signals;  // before mounting, so that a signal never leaves a dead mount behind
  RK_TRY_ASSIGN(auto mounted, Mounted::create(session.get(), mountpoint));
  context.retirement.start(session.get(), mountpoint);
  context.hot.start(fuse_session_fd(session.get()));
  SessionLoop loop(session.get());
  Attendant attendant(context, loop, signals, mountpoint, std::move(ready));
  const Status ended = loop.run();
  context.notifier.stop();  // these stop before the session's descriptor is closed, because its number may be reused
  context.hot.stop();
  attendant.loop_has_ended();
  mounted.reset();  // destroyed before the attendant is joined, which may be waiting for an answer
  if (!ended) return fail(ended.error().code, "the mount at " + mountpoint + " has ended: " + describe(ended.error()));
  return {};
}

}  // namespace rekeyfs::fs
