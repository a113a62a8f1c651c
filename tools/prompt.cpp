#include "tools/prompt.h"

#include <cerrno>
#include <csignal>

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "engine/base/descriptor.h"

namespace rekeyfs::tools {
namespace {

constexpr std::size_t kLongestLine = 4096;  // limit of a terminal's line editing

// Blocks the signals that would leave the terminal without echo; the destructor delivers them.
class HeldSignals {
 public:
  HeldSignals() {
    sigemptyset(&set_);
    for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP}) sigaddset(&set_, signal);
    sigprocmask(SIG_BLOCK, &set_, &before_);
    arrived_ = Descriptor(signalfd(-1, &set_, SFD_CLOEXEC));
  }
  HeldSignals(const HeldSignals&) = delete;
  HeldSignals& operator=(const HeldSignals&) = delete;
  ~HeldSignals() { sigprocmask(SIG_SETMASK, &before_, nullptr); }
  int descriptor() const { return arrived_.get(); }

 private:
  sigset_t set_{}, before_{};
  Descriptor arrived_;
};

class EchoOff {
 public:
  explicit EchoOff(int terminal) : terminal_(terminal) {
    tcgetattr(terminal_, &before_);
    termios silent = before_;
    silent.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    silent.c_lflag |= ECHONL;  // the echoed line feed confirms Enter
    tcsetattr(terminal_, TCSAFLUSH, &silent);
  }
  EchoOff(const EchoOff&) = delete;
  EchoOff& operator=(const EchoOff&) = delete;
  ~EchoOff() { tcsetattr(terminal_, TCSAFLUSH, &before_); }

 private:
  const int terminal_;
  termios before_{};
};

void say(int terminal, const std::string& text) {
  if (write(terminal, text.data(), text.size()) < 0) return;  // if the terminal is gone, the read below fails
}

// False if a signal arrived before a line.
bool wait_for_line(int terminal, int signals) {
  pollfd both[] = {{terminal, POLLIN, 0}, {signals, POLLIN, 0}};
  while (poll(both, 2, -1) < 0 && errno == EINTR) {
  }
  return (both[1].revents & POLLIN) == 0;
}

// Empty after a signal, at end of input, or for an empty line.
SecretBytes read_silent_line(int terminal) {
  HeldSignals signals;
  EchoOff echo_off(terminal);
  SecretBytes line(kLongestLine);
  ssize_t got = 0;
  if (wait_for_line(terminal, signals.descriptor())) got = read(terminal, line.data(), line.size());
  line.shorten(got > 0 ? static_cast<std::size_t>(got) : 0);
  if (line.expose().ends_with('\n')) line.shorten(line.size() - 1);
  return line;
}

}  // namespace

Outcome<SecretBytes> ask_secret(const std::string& question) {
  Descriptor terminal(open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY));
  if (!terminal)
    return fail(ExitCode::wrong_secret,
                "cannot ask for the passphrase without a terminal; give --passphrase-file FILE or --key-file FILE "
                "(mount options passphrase_file=FILE, key_file=FILE)");
  say(terminal.get(), question);
  SecretBytes line = read_silent_line(terminal.get());
  if (line.empty()) return fail(ExitCode::wrong_secret, "the passphrase is empty; run the command again");
  return line;
}

}  // namespace rekeyfs::tools
