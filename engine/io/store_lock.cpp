#include "engine/io/store_lock.h"

#include <array>
#include <cerrno>
#include <chrono>
#include <optional>
#include <string_view>
#include <thread>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/log.h"
#include "engine/base/read.h"

namespace rekeyfs::io {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
constexpr std::string_view kLockName = "lock";
// "pid command\n", padded with blanks to a fixed size, so that a full disk cannot refuse it.
constexpr std::size_t kHolderSize = 64;
constexpr std::size_t kMaxShown = 200;  // maximum length of a command line in a message
constexpr auto kMaxWait = 1s;  // for children that a killed holder has left behind

struct Holder {
  std::string pid;
  std::string command;  // process name from the kernel, at most 15 characters
};

// Reads at most 4 KiB of a small file; empty if it cannot be read.
std::string read_small_file(const std::string& path) {
  Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text(4096, '\0');
  text.resize(read_full(fd.get(), std::as_writable_bytes(std::span(text))).value_or(0));
  return text;
}

std::string command_of(const std::string& pid) {
  std::string command = read_small_file("/proc/" + pid + "/comm");
  if (command.ends_with('\n')) command.pop_back();
  return command;
}

void write_holder(int fd) {
  const std::string pid = std::to_string(::getpid());
  std::string line = pid + " " + command_of("self");
  line.resize(kHolderSize - 1, ' ');
  line += '\n';
  if (::pwrite(fd, line.data(), line.size(), 0) != static_cast<ssize_t>(line.size()))
    log::warn("cannot write to the lock file which process holds the store (is the disk full?); the lock itself is held");
}

// The holder named in the file if a process with that id and name is running: the line may be from an earlier holder.
std::optional<Holder> read_holder(int fd) {
  std::array<char, kHolderSize> line;
  const ssize_t size = ::pread(fd, line.data(), line.size(), 0);
  if (size <= 0) return std::nullopt;
  std::string_view text(line.data(), static_cast<std::size_t>(size));
  const std::size_t space = text.find(' ');
  const std::size_t end = text.find_last_not_of(" \n");
  if (space == std::string_view::npos || end == std::string_view::npos || end <= space) return std::nullopt;
  Holder holder{std::string(text.substr(0, space)), std::string(text.substr(space + 1, end - space))};
  const bool is_number = holder.pid.find_first_not_of("0123456789") == std::string::npos;
  if (!is_number || command_of(holder.pid) != holder.command) return std::nullopt;
  return holder;
}

// The command line, or else the name, for display; without control characters, which could move a terminal's cursor.
std::string shown_command(const Holder& holder) {
  std::string line = read_small_file("/proc/" + holder.pid + "/cmdline");
  while (line.ends_with('\0')) line.pop_back();
  if (line.empty()) line = holder.command;
  if (line.size() > kMaxShown) line = line.substr(0, kMaxShown) + "...";
  for (char& c : line) {
    if (c == '\0') c = ' ';
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') c = '?';
  }
  return line;
}

Error held(const std::string& store, int fd) {
  const std::string what = "the store `" + store + "` is in use by ";
  const std::optional<Holder> holder = read_holder(fd);
  if (!holder)
    return Error{Errc::locked,
                 what +
                     "another process: unmount it with `rekeyfs umount`, or see who has its `lock` open with "
                     "`fuser`, then try again"};
  return Error{Errc::locked,
               what + "process " + holder->pid + " (" + shown_command(*holder) +
                   "): unmount it with `rekeyfs umount`, or wait for that process to end, then try again"};
}

Result<Descriptor> open_lock_file(const std::string& path) {
  Descriptor fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600));
  if (!fd && errno != ELOOP) return fail(error_from_errno(errno, "open the store's lock `" + path + "`"));
  struct stat facts {};
  if (!fd || ::fstat(fd.get(), &facts) != 0 || !S_ISREG(facts.st_mode))
    return fail(Errc::corrupt, "`" + path + "` is not a regular file: find out who put it there and remove it");
  return fd;
}

}  // namespace

Result<StoreLock> StoreLock::acquire(const std::string& store_directory) {
  const std::string path = store_directory + "/" + std::string(kLockName);
  RK_TRY_ASSIGN(Descriptor fd, open_lock_file(path));
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  const auto give_up = Clock::now() + kMaxWait;
  while (::fcntl(fd.get(), F_OFD_SETLK, &whole) != 0) {
    if (errno != EAGAIN && errno != EACCES) return fail(error_from_errno(errno, "lock `" + path + "`"));
    // Without a running holder, the lock belongs to a child that the holder had just forked and that is about to close
    // it.
    if (read_holder(fd.get()) || Clock::now() >= give_up) return fail(held(store_directory, fd.get()));
    std::this_thread::sleep_for(10ms);
  }
  write_holder(fd.get());
  return StoreLock(std::move(fd));
}

}  // namespace rekeyfs::io
