// Mutexes that clang's thread-safety analysis understands (clang builds use -Werror=thread-safety).
//
// The lock order of the whole engine, outermost first, is written in man/rekeyfs-design.7:
// image -> layer -> catalog -> journal.
#pragma once

#include <pthread.h>

#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define RK_THREAD_ATTR(x) __attribute__((x))
#else
#define RK_THREAD_ATTR(x)
#endif

#define CAPABILITY(x) RK_THREAD_ATTR(capability(x))
#define SCOPED_CAPABILITY RK_THREAD_ATTR(scoped_lockable)
#define GUARDED_BY(x) RK_THREAD_ATTR(guarded_by(x))
#define PT_GUARDED_BY(x) RK_THREAD_ATTR(pt_guarded_by(x))
#define ACQUIRE(...) RK_THREAD_ATTR(acquire_capability(__VA_ARGS__))
#define ACQUIRE_SHARED(...) RK_THREAD_ATTR(acquire_shared_capability(__VA_ARGS__))
#define RELEASE(...) RK_THREAD_ATTR(release_capability(__VA_ARGS__))
#define RELEASE_SHARED(...) RK_THREAD_ATTR(release_shared_capability(__VA_ARGS__))
#define RELEASE_GENERIC(...) RK_THREAD_ATTR(release_generic_capability(__VA_ARGS__))
#define REQUIRES(...) RK_THREAD_ATTR(requires_capability(__VA_ARGS__))
#define REQUIRES_SHARED(...) RK_THREAD_ATTR(requires_shared_capability(__VA_ARGS__))
#define EXCLUDES(...) RK_THREAD_ATTR(locks_excluded(__VA_ARGS__))
#define RETURN_CAPABILITY(x) RK_THREAD_ATTR(lock_returned(x))
#define NO_THREAD_SAFETY_ANALYSIS RK_THREAD_ATTR(no_thread_safety_analysis)

namespace rekeyfs {

class CAPABILITY("mutex") Mutex {
 public:
  void lock() ACQUIRE() { mutex_.lock(); }
  void unlock() RELEASE() { mutex_.unlock(); }

 private:
  friend class CondVar;
  std::mutex mutex_;
};

// A waiting writer goes before later readers: with std::shared_mutex, overlapping readers can block a writer forever.
// Therefore a thread must not lock the same mutex shared twice: a writer may start to wait in between.
class CAPABILITY("shared mutex") SharedMutex {
 public:
  SharedMutex() {
    pthread_rwlockattr_t attributes;
    ::pthread_rwlockattr_init(&attributes);
    ::pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    ::pthread_rwlock_init(&lock_, &attributes);
    ::pthread_rwlockattr_destroy(&attributes);
  }
  ~SharedMutex() { ::pthread_rwlock_destroy(&lock_); }
  SharedMutex(const SharedMutex&) = delete;
  SharedMutex& operator=(const SharedMutex&) = delete;

  void lock() ACQUIRE() { ::pthread_rwlock_wrlock(&lock_); }
  void unlock() RELEASE() { ::pthread_rwlock_unlock(&lock_); }
  void lock_shared() ACQUIRE_SHARED() { ::pthread_rwlock_rdlock(&lock_); }
  void unlock_shared() RELEASE_SHARED() { ::pthread_rwlock_unlock(&lock_); }

 private:
  pthread_rwlock_t lock_;
};

template <typename M>
class SCOPED_CAPABILITY BasicLock {
 public:
  explicit BasicLock(M& mutex) ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~BasicLock() RELEASE() { mutex_.unlock(); }
  BasicLock(const BasicLock&) = delete;
  BasicLock& operator=(const BasicLock&) = delete;

 private:
  M& mutex_;
};
using Lock = BasicLock<Mutex>;
using UniqueLock = BasicLock<SharedMutex>;

class SCOPED_CAPABILITY SharedLock {
 public:
  explicit SharedLock(SharedMutex& mutex) ACQUIRE_SHARED(mutex) : mutex_(mutex) { mutex_.lock_shared(); }
  ~SharedLock() RELEASE_GENERIC() { mutex_.unlock_shared(); }
  SharedLock(const SharedLock&) = delete;
  SharedLock& operator=(const SharedLock&) = delete;

 private:
  SharedMutex& mutex_;
};

// A condition variable for Mutex; the caller holds the mutex and loops over its own condition.
class CondVar {
 public:
  void wait(Mutex& mutex) REQUIRES(mutex) {
    std::unique_lock<std::mutex> held(mutex.mutex_, std::adopt_lock);
    condition_.wait(held);
    held.release();
  }
  template <typename Duration>
  void wait_for(Mutex& mutex, Duration duration) REQUIRES(mutex) {
    std::unique_lock<std::mutex> held(mutex.mutex_, std::adopt_lock);
    condition_.wait_for(held, duration);
    held.release();
  }
  void notify_one() { condition_.notify_one(); }
  void notify_all() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace rekeyfs
