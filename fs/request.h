// Request: what the header of a kernel's request tells, before libfuse takes the request apart.
#pragma once

#include <cstdint>

#include <sys/types.h>

#include "engine/base/bytes.h"

namespace rekeyfs::fs {

struct RequestHead {
  enum class Kind : std::uint8_t {
    prompt,   // names and attributes: needs memory and the catalog only
    content,  // may wait for a disk, for a format reader or for another change of the image
    command,  // an ioctl: may wait for a sync or for a key service
  };
  Kind kind = Kind::prompt;
  uid_t user = 0;  // 0 also for requests that the kernel makes itself (a release, a write-back)
};

RequestHead head_of(ByteView request);

}  // namespace rekeyfs::fs
