// Pipe: a pipe from one process or thread to another. Both ends are close-on-exec.
#pragma once

#include <array>
#include <cerrno>

#include <fcntl.h>
#include <unistd.h>

#include "engine/base/descriptor.h"
#include "engine/base/result.h"

namespace rekeyfs {

struct Pipe {
  Descriptor read, write;

  static Result<Pipe> create(int flags = 0) {  // `flags` as in pipe2(2)
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), flags | O_CLOEXEC) != 0) return fail(error_from_errno(errno, "make a pipe"));
    return Pipe{Descriptor(ends[0]), Descriptor(ends[1])};
  }
};

}  // namespace rekeyfs
