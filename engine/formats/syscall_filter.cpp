#include "engine/formats/syscall_filter.h"

#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>

namespace rekeyfs::formats {
namespace {

// Memory, threads, time, open files, opening files for reading, and existing sockets. No new sockets or processes, and
// nothing that concerns other processes, mounts, keys, tracing or io_uring.
constexpr std::array kAllowed{
    // to start: the program is executed under the filter
    "access", "arch_prctl", "brk", "execve", "faccessat", "faccessat2", "getcwd", "newfstatat", "open", "openat",
    "prlimit64", "getrlimit", "readlink", "readlinkat", "rseq", "set_robust_list", "set_tid_address", "stat", "lstat",
    "statx", "statfs", "fstatfs", "uname",
    // memory
    "madvise", "membarrier", "mmap", "mprotect", "mremap", "munmap",
    // threads
    "exit", "exit_group", "futex", "get_robust_list", "getcpu", "gettid", "sched_getaffinity", "sched_getparam",
    "sched_getscheduler", "sched_yield", "tgkill",
    // itself
    "capget", "getegid", "geteuid", "getgid", "getgroups", "getpgrp", "getpid", "getppid", "getrusage", "getsid",
    "getuid", "prctl", "sysinfo", "umask",
    // signals
    "restart_syscall", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigreturn", "rt_sigsuspend",
    "rt_sigtimedwait", "sigaltstack", "signalfd4",
    // time
    "clock_getres", "clock_gettime", "clock_nanosleep", "gettimeofday", "nanosleep", "time", "times",
    "timerfd_create", "timerfd_gettime", "timerfd_settime",
    // descriptors
    "close", "close_range", "dup", "dup2", "dup3", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_wait",
    "eventfd2", "fadvise64", "fcntl", "fstat", "getdents64", "ioctl", "lseek", "pipe2", "poll", "ppoll", "pread64",
    "preadv", "preadv2", "pselect6", "read", "readv", "select", "write", "writev",
    // the sockets it was given
    "accept", "accept4", "getpeername", "getsockname", "getsockopt", "listen", "recvfrom", "recvmsg", "sendmsg",
    "sendto", "setsockopt", "shutdown",
    // randomness
    "getrandom",
};

struct Release {
  void operator()(scmp_filter_ctx filter) const { ::seccomp_release(filter); }
};
using Filter = std::unique_ptr<void, Release>;

Status allow_all(scmp_filter_ctx filter) {
  for (const char* name : kAllowed) {
    const int call = ::seccomp_syscall_resolve_name(name);
    if (call < 0) continue;  // does not exist on this architecture
    if (const int error = ::seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0))
      return fail(error_from_errno(-error, "allow a system call to the format reader"));
  }
  // Threads only, no processes. A filter cannot see the flags of clone3, so clone3 fails and the C library uses clone.
  const int error = ::seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                                       SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
  if (error != 0) return fail(error_from_errno(-error, "allow threads to the format reader"));
  return {};
}

}  // namespace

Result<Descriptor> make_syscall_filter() {
  const Filter filter(::seccomp_init(SCMP_ACT_ERRNO(ENOSYS)));
  if (!filter) return fail(Errc::no_memory, "out of memory for the system call filter of the format reader");
  RK_TRY(allow_all(filter.get()));
  Descriptor program(::memfd_create("rekeyfs-syscalls", MFD_CLOEXEC));
  if (!program) return fail(error_from_errno(errno, "create a system call filter"));
  if (const int error = ::seccomp_export_bpf(filter.get(), program.get()))
    return fail(error_from_errno(-error, "write a system call filter"));
  if (::lseek(program.get(), 0, SEEK_SET) != 0) return fail(error_from_errno(errno, "rewind a system call filter"));
  return program;
}

}  // namespace rekeyfs::formats
