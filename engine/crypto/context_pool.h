// ContextPool: contexts that are expensive to make (their key is set up), lent to one thread at a time.
//
// For engine/crypto only. Thread-safe. It holds as many contexts as were ever used at once and no more.
#pragma once

#include <new>
#include <utility>
#include <vector>

#include "engine/base/mutex.h"

namespace rekeyfs::crypto {

template <typename Pointer>  // an owning pointer; null is "none"
class ContextPool {
 public:
  // A context out on loan; given back when it goes.
  class Lease {
   public:
    Lease(ContextPool& pool, Pointer context) : pool_(pool), context_(std::move(context)) {}
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() {
      if (context_) pool_.give(std::move(context_));
    }
    auto get() const { return context_.get(); }
    // For a lease of nothing: the context that will be given to the pool.
    void fill(Pointer context) { context_ = std::move(context); }

   private:
    ContextPool& pool_;
    Pointer context_;
  };

  // Holds nothing when all contexts are out: the caller makes one and fills the lease with it.
  Lease take() EXCLUDES(mutex_) {
    Lock lock(mutex_);
    if (idle_.empty()) return Lease(*this, nullptr);
    Pointer context = std::move(idle_.back());
    idle_.pop_back();
    return Lease(*this, std::move(context));
  }

  // Called by destructors: without memory to keep it by, the context goes.
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
