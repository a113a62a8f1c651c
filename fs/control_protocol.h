// How a command reaches the daemon of a mounted store: two ioctl(2) calls on a descriptor of a directory in it,
// or of an image, for what concerns that open handle.
//
// CALL runs the request and keeps its answer with that open descriptor; FETCH hands the answer out piece by
// piece. Request and answer are JSON text (fs/control.h). Used by the daemon and by the commands; the layout is
// the same on both sides and for 32-bit callers. An ioctl number carries the size of its argument, 16383 bytes
// at most, and the kernel copies no more than that for a FUSE file system: hence the pieces.
#pragma once

#include <cstddef>
#include <cstdint>

#include <sys/ioctl.h>

namespace rekeyfs::fs {

inline constexpr std::size_t kCallBytes = 8192 - 4;
inline constexpr std::size_t kFetchBytes = 8192 - 16;

struct CallRequest {
  std::uint32_t size;  // of the text that follows
  char text[kCallBytes];
};

struct FetchReply {
  std::uint64_t offset;  // in: where in the answer to start
  std::uint32_t total;   // out: size of the whole answer
  std::uint32_t size;    // out: bytes in `text`, 0 at the end
  char text[kFetchBytes];
};

static_assert(sizeof(CallRequest) == 8192 && sizeof(FetchReply) == 8192);

}  // namespace rekeyfs::fs

#define RK_IOC_CALL _IOW('R', 1, ::rekeyfs::fs::CallRequest)
#define RK_IOC_FETCH _IOWR('R', 2, ::rekeyfs::fs::FetchReply)
