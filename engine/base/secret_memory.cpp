#include "engine/base/secret_memory.h"

#include <algorithm>
#include <cstdint>
#include <memory_resource>
#include <vector>

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/base/log.h"
#include "engine/base/mutex.h"

namespace rekeyfs::secret_memory {
namespace {

constexpr std::size_t kFirstPiece = std::size_t{128} << 10;
constexpr std::size_t kLargestPooled = 4096;  // including the header
constexpr std::size_t kMaxBlocksAtATime = 32;
constexpr std::size_t kNotExpectedToFit = std::size_t{16} << 20;  // used by scrypt: more than an ordinary user may lock

std::size_t in_pages(std::size_t bytes) {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}

// Memory mapped from the kernel: locked, excluded from core dumps, with an inaccessible page on either side.
class Pieces final : public std::pmr::memory_resource {
 public:
  void lock_again() {
    for (const Piece& piece : pieces_) lock(piece);
  }

 private:
  struct Piece {
    std::byte* begin;
    std::size_t size;
  };

  static bool lock(const Piece& piece) { return ::mlock(piece.begin, piece.size) == 0; }

  void* do_allocate(std::size_t bytes, std::size_t) override {
    pieces_.reserve(pieces_.size() + 1);
    const std::size_t guard = in_pages(1), size = in_pages(bytes);
    void* const mapped = ::mmap(nullptr, size + 2 * guard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    const Piece piece{static_cast<std::byte*>(mapped) + guard, size};
    if (::mprotect(piece.begin, size, PROT_READ | PROT_WRITE) != 0 ||
        ::madvise(piece.begin, size, MADV_DONTDUMP) != 0) {
      ::munmap(mapped, size + 2 * guard);
      throw std::bad_alloc();
    }
    if (!lock(piece) && bytes < kNotExpectedToFit) warn();
    pieces_.push_back(piece);
    return piece.begin;
  }

  void do_deallocate(void* memory, std::size_t, std::size_t) override {
    const auto piece = std::find_if(pieces_.begin(), pieces_.end(), [&](const Piece& p) { return p.begin == memory; });
    const std::size_t guard = in_pages(1);
    ::munmap(piece->begin - guard, piece->size + 2 * guard);
    pieces_.erase(piece);
  }

  bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override { return this == &other; }

  void warn() {
    if (std::exchange(warned_, true)) return;
    log::warn("keys may be swapped to disk: the memory that holds them cannot be locked; raise the limit on locked memory (ulimit -l)");
  }

  std::vector<Piece> pieces_;
  bool warned_ = false;
};

// Precedes every allocation; its size is the alignment that malloc() guarantees.
struct alignas(std::max_align_t) Header {
  std::size_t size;  // size requested by the caller
};

// A multiple of the header size: libstdc++'s pool has blocks of 24 bytes and uses them for any alignment (gcc bug
// 118681).
constexpr std::size_t with_header(std::size_t size) {
  return (sizeof(Header) + size + sizeof(Header) - 1) / sizeof(Header) * sizeof(Header);
}

class Heap {
 public:
  static Heap& instance() {
    static Heap& heap = *new Heap;  // never destroyed: OpenSSL frees memory at the very end of a process
    return heap;
  }

  void* allocate(std::size_t size) EXCLUDES(mutex_) {
    const Lock lock(mutex_);
    void* const memory = resource_for(size).allocate(with_header(size), alignof(Header));
    return new (memory) Header{size} + 1;
  }

  void release(Header* header) EXCLUDES(mutex_) {
    const std::size_t size = header->size;
    ::explicit_bzero(header, sizeof(Header) + size);
    const Lock lock(mutex_);
    resource_for(size).deallocate(header, with_header(size), alignof(Header));
  }

 private:
  Heap() {
    // A child inherits the memory but not its locks in RAM, and must not inherit a mutex held by another thread.
    ::pthread_atfork([] { instance().before_fork(); }, [] { instance().after_fork(); }, [] { instance().in_child(); });
  }

  void before_fork() NO_THREAD_SAFETY_ANALYSIS { mutex_.lock(); }
  void after_fork() NO_THREAD_SAFETY_ANALYSIS { mutex_.unlock(); }
  void in_child() NO_THREAD_SAFETY_ANALYSIS {
    pieces_.lock_again();
    mutex_.unlock();
  }

  std::pmr::memory_resource& resource_for(std::size_t size) REQUIRES(mutex_) {
    if (with_header(size) > kLargestPooled) return pieces_;
    return pool_;
  }

  Mutex mutex_;
  Pieces pieces_ GUARDED_BY(mutex_);
  std::pmr::monotonic_buffer_resource chunks_ GUARDED_BY(mutex_){kFirstPiece, &pieces_};
  std::pmr::unsynchronized_pool_resource pool_ GUARDED_BY(mutex_){
      {.max_blocks_per_chunk = kMaxBlocksAtATime, .largest_required_pool_block = kLargestPooled}, &chunks_};
};

Header* header_of(const void* memory) {
  return static_cast<Header*>(const_cast<void*>(memory)) - 1;
}

}  // namespace

void* allocate(std::size_t size) noexcept {
  if (size == 0 || size > SIZE_MAX / 2) return nullptr;
  try {
    return Heap::instance().allocate(size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

void release(void* memory) noexcept {
  if (memory != nullptr) Heap::instance().release(header_of(memory));
}

std::size_t size_of(const void* memory) noexcept {
  return header_of(memory)->size;
}

}  // namespace rekeyfs::secret_memory
