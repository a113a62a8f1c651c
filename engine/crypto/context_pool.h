// ContextPool: contexts that are expensive to create (key setup), leased to one thread at a time.
//
// For engine/crypto only. Thread-safe. It holds at most as many contexts as were ever in use at the same time.
#pragma once

#include <new>
#include <utility>
#include <vector>

#include "engine/base/mutex.h"

namespace rekeyfs::crypto {

template <typename Pointer>  // an owning pointer; null: none
class ContextPool {
 public:
  // A leased context; returned to the pool by the destructor.
  class Lease {
   public:
    Lease(ContextPool& pool, Pointer context) : pool_(pool), context_(std::move(context)) {}
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() {
      if (context_) pool_.give(std::move(context_));
    }
    auto get() const { return context_.get(); }
    // For an empty lease: stores the context to be returned to the pool.
    void fill(Pointer context) { context_ = std::move(context); }

   private:
    ContextPool& pool_;
    Pointer context_;
  };

  // Returns an empty lease when no context is free: the caller then creates one and adopts it into the lease.
  Lease take() EXCLUDES(mutex_) {
    Lock lock(mutex_);
    if (idle_.empty()) return Lease(*this, nullptr);
    Pointer context = std::move(idle_.back());
    idle_.pop_back();
    return Lease(*this, std::move(context));
  }

  // Called by destructors. Without memory to keep it, the context is freed.
  void give(Pointer context) noexcept EXCLUDES(mutex_) {
    Lock lock(mutex_);
    try {
      idle_.push_back(std::move(context));
    } catch (const std::bad_alloc&) {
      return;
    }
  }

 private:
  Mutex mutex_;
  std::vector<Pointer> idle_ GUARDED_BY(mutex_);
};

}  // namespace rekeyfs::crypto
