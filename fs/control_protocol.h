// Control protocol: how a command reaches the daemon of a mounted store: two ioctl(2) calls on a descriptor of a
// directory in the mount or, for commands about an open handle, of an image.
//
// CALL runs the request and keeps its answer with that open descriptor; FETCH returns the answer in pieces, from its
// beginning to its end, once. It fails with ESTALE if the answer is gone, because the answers of one user have a bounded
// size. Request and answer are JSON text (fs/control.h). Used by the daemon and by the commands; the layout is the same
// on both sides and for 32-bit callers. The answer comes in pieces because an ioctl number contains the size of its
// argument, at most 16383 bytes, and for FUSE the kernel copies no more than that.
#pragma once

#include <cstddef>
#include <cstdint>

#include <sys/ioctl.h>

namespace rekeyfs::fs {

inline constexpr std::size_t kCallBytes = 8192 - 4;
inline constexpr std::size_t kFetchBytes = 8192 - 16;

struct CallRequest {
  std::uint32_t size;  // of the text after it
  char text[kCallBytes];
};

struct FetchReply {
  std::uint64_t offset;  // in: offset in the answer
  std::uint32_t total;   // out: size of the whole answer
  std::uint32_t size;    // out: bytes in `text`; 0 at the end
  char text[kFetchBytes];
};

static_assert(sizeof(CallRequest) == 8192 && sizeof(FetchReply) == 8192);

}  // namespace rekeyfs::fs

#define RK_IOC_CALL _IOW('R', 1, ::rekeyfs::fs::CallRequest)
#define RK_IOC_FETCH _IOWR('R', 2, ::rekeyfs::fs::FetchReply)
