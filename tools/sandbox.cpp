#include "tools/sandbox.h"

#include <cerrno>
#include <memory>
#include <utility>
#include <vector>

#include <cap-ng.h>
#include <linux/capability.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace rekeyfs::tools {
namespace {

bool is_roots() {
  return geteuid() == 0;
}

bool belongs_to_another(const std::string& store) {
  struct stat facts {};
  return stat(store.c_str(), &facts) != 0 || facts.st_uid != geteuid();
}

// Those of the wanted capabilities that the process has; in a container some may be missing.
std::vector<unsigned> held(std::vector<unsigned> wanted) {
  capng_get_caps_process();
  std::erase_if(wanted, [](unsigned capability) { return capng_have_capability(CAPNG_PERMITTED, capability) == 0; });
  return wanted;
}

// Not refused, although the daemon does not use them: clone(), unshare(), mount() and pivot_root(). bubblewrap inherits
// this filter and needs them to confine the format readers.
constexpr int kRefused[] = {
    // other processes' memory and descriptors
    SCMP_SYS(ptrace), SCMP_SYS(process_vm_readv), SCMP_SYS(process_vm_writev), SCMP_SYS(pidfd_getfd), SCMP_SYS(kcmp),
    // the kernel: its code, its keys, and interfaces to run code in it or to read its data
    SCMP_SYS(kexec_load), SCMP_SYS(kexec_file_load), SCMP_SYS(init_module), SCMP_SYS(finit_module),
    SCMP_SYS(delete_module), SCMP_SYS(bpf), SCMP_SYS(perf_event_open), SCMP_SYS(userfaultfd), SCMP_SYS(keyctl),
    SCMP_SYS(add_key), SCMP_SYS(request_key), SCMP_SYS(syslog), SCMP_SYS(lookup_dcookie), SCMP_SYS(io_uring_setup),
    SCMP_SYS(fanotify_init),
    // mounts and namespaces; umount2() is needed at the end
    SCMP_SYS(move_mount), SCMP_SYS(open_tree), SCMP_SYS(fsopen), SCMP_SYS(fsconfig), SCMP_SYS(fsmount),
    SCMP_SYS(fspick), SCMP_SYS(mount_setattr), SCMP_SYS(chroot), SCMP_SYS(setns),
    SCMP_SYS(open_by_handle_at),
    // the machine
    SCMP_SYS(reboot), SCMP_SYS(swapon), SCMP_SYS(swapoff), SCMP_SYS(acct), SCMP_SYS(quotactl), SCMP_SYS(quotactl_fd),
    SCMP_SYS(settimeofday), SCMP_SYS(clock_settime), SCMP_SYS(clock_adjtime), SCMP_SYS(adjtimex), SCMP_SYS(sethostname),
    SCMP_SYS(setdomainname), SCMP_SYS(iopl), SCMP_SYS(ioperm), SCMP_SYS(modify_ldt), SCMP_SYS(vhangup),
    SCMP_SYS(personality)};

constexpr std::pair<scmp_filter_attr, std::uint32_t> kAttributes[] = {
    {SCMP_FLTATR_CTL_NNP, 0},                          // already set
    {SCMP_FLTATR_CTL_TSYNC, 1},                        // all threads
    {SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS},  // can only be an attempt to bypass the list
    {SCMP_FLTATR_CTL_OPTIMIZE, 2}};                    // a tree instead of a list

// Networks are refused: the log uses a local socket, and bubblewrap sets up its own network namespace.
constexpr int kNetworks[] = {AF_INET, AF_INET6, AF_PACKET, AF_VSOCK};

struct FilterDeleter {
  void operator()(void* filter) const { seccomp_release(filter); }
};

// EPERM instead of killing the process: a system call tried by a later version of some library must not end the mount.
int load_filter() {
  const std::unique_ptr<void, FilterDeleter> filter(seccomp_init(SCMP_ACT_ALLOW));
  if (!filter) return ENOMEM;
  for (const auto& [attribute, value] : kAttributes)
    if (const int failed = seccomp_attr_set(filter.get(), attribute, value)) return -failed;
  for (const int call : kRefused)
    if (const int failed = seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(EPERM), call, 0)) return -failed;
  for (const int network : kNetworks) {
    const scmp_arg_cmp is_it{0, SCMP_CMP_EQ, static_cast<scmp_datum_t>(network), 0};
    if (const int failed = seccomp_rule_add_array(filter.get(), SCMP_ACT_ERRNO(EPERM), SCMP_SYS(socket), 1, &is_it)) return -failed;
  }
  return -seccomp_load(filter.get());
}

}  // namespace

Outcome<void> drop_privileges(const std::string& store) {
  if (!is_roots()) return {};
  std::vector<unsigned> wanted{CAP_SYS_ADMIN, CAP_DAC_READ_SEARCH, CAP_IPC_LOCK, CAP_SETFCAP};
  if (belongs_to_another(store)) wanted.push_back(CAP_DAC_OVERRIDE);
  const std::vector<unsigned> kept = held(std::move(wanted));
  capng_clear(CAPNG_SELECT_CAPS);
  for (const unsigned capability : kept)
    capng_update(CAPNG_ADD, static_cast<capng_type_t>(CAPNG_EFFECTIVE | CAPNG_PERMITTED), capability);
  if (capng_apply(CAPNG_SELECT_CAPS) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    return tl::unexpected<Failure>(error_from_errno(errno, "drop capabilities"));
  return {};
}

Outcome<void> refuse_system_calls() {
  if (!is_roots()) return {};
  if (const int error = load_filter()) return tl::unexpected<Failure>(error_from_errno(error, "load the system call filter"));
  return {};
}

}  // namespace rekeyfs::tools
