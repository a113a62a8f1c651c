// Faults of the system below a process: calls of the C library that fail, come short or are interrupted, and memory that
// is not there. The library (faults.cpp) stands in front of libc and libstdc++, in a test that is linked with it or, by
// LD_PRELOAD, in the real daemon; so it reaches what LMDB does as well. Which calls fail is said in memory that processes
// share: of a test and its children, or a file that $REKEYFS_TEST_FAULTS_FILE names (tests/mount/faults.py knows the layout, too).
#pragma once

#include <atomic>
#include <cstdint>

namespace rekeyfs::test {

struct Faults {
  enum Kind : std::uint32_t {
    read = 1,     // pread
    write = 2,    // pwrite, writev: half is written when it fails
    sync = 4,     // fsync, fdatasync, syncfs
    open = 8,     // open, openat, openat2
    space = 16,   // fallocate
    names = 32,   // mkdirat, unlinkat, renameat
    memory = 64,  // operator new
    commit = 128, // LMDB's last write, which takes place and fails all the same, and the one that would take it back
    libraries_memory = 256,  // malloc, calloc, realloc: LMDB's, libc's own and, if it has no other functions, OpenSSL's
  };
  std::atomic<std::uint32_t> kinds;  // that fail; 0: none
  std::atomic<std::int32_t> error;   // errno
  std::atomic<std::int64_t> first;   // that fails, of those counted
  std::atomic<std::int64_t> last;
  std::atomic<std::int64_t> calls;   // of `kinds`, counted so far
  std::atomic<std::int64_t> failed;  // of them
  std::atomic<std::int64_t> one_in;  // 0; else one call in so many fails, drawn from `first`, whatever `last` is
  std::atomic<std::uint32_t> short_transfers;  // reads and writes of all files but the catalog's do a part, or are interrupted
};

extern "C" Faults* rekeyfs_faults();
// Whether calls of this thread count. A process begins with all threads counting.
extern "C" void rekeyfs_faults_count_this_thread(bool count);

}  // namespace rekeyfs::test
