#include "engine/base/read.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include <poll.h>
#include <unistd.h>

namespace rekeyfs {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

ssize_t read_some(int descriptor, void* to, std::size_t size) {
  for (;;) {
    const ssize_t got = ::read(descriptor, to, size);
    if (got >= 0 || errno != EINTR) return got;
  }
}

// False at the end of input.
bool append_some(int descriptor, std::string& text) {
  std::array<char, 4096> part;
  const ssize_t got = read_some(descriptor, part.data(), part.size());
  if (got > 0) text.append(part.data(), static_cast<std::size_t>(got));
  return got > 0;
}

bool has_input_before(int descriptor, Clock::time_point deadline) {
  for (;;) {
    const auto left = std::max(std::chrono::ceil<milliseconds>(deadline - Clock::now()), milliseconds(0));
    pollfd wait{.fd = descriptor, .events = POLLIN, .revents = 0};
    const int ready = ::poll(&wait, 1, static_cast<int>(left.count()));
    if (ready >= 0 || errno != EINTR) return ready > 0;
  }
}

}  // namespace

Result<std::size_t> read_full(int descriptor, ByteSpan out) {
  std::size_t size = 0;
  while (size < out.size()) {
    const ssize_t got = read_some(descriptor, out.data() + size, out.size() - size);
    if (got < 0) return fail(error_from_errno(errno, "read"));
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  return size;
}

std::string read_to_end(int descriptor) {
  std::string text;
  while (append_some(descriptor, text)) {
  }
  return text;
}

std::string read_to_end(int descriptor, milliseconds limit) {
  const Clock::time_point deadline = Clock::now() + limit;
  std::string text;
  while (has_input_before(descriptor, deadline) && append_some(descriptor, text)) {
  }
  return text;
}

}  // namespace rekeyfs
