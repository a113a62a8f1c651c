// Sharing: whether anything reads from a layer, so that its content must not change.
//
// There are two kinds of readers: a hold, which is an object of this process (see BaseRef), and a layer on record whose
// base is this layer, open or not. Without a hold, the catalog is asked for such records; its answer is cached until a
// hold ends or a record is erased. That suffices, because a new record is put only while its layer, which is open, has
// a hold. Thread-safe.
#pragma once

#include <optional>

#include "engine/base/ids.h"
#include "engine/base/mutex.h"
#include "engine/catalog/catalog.h"

namespace rekeyfs::blocks {

class Sharing {
 public:
  // The catalog must outlive this object.
  Sharing(const catalog::Catalog& catalog, LayerId layer) : catalog_(catalog), layer_(layer) {}

  // Counts as a reader for the lifetime of the object.
  class Hold {
   public:
    explicit Hold(Sharing& sharing);
    Hold(Hold&& other) noexcept;
    Hold& operator=(Hold&&) = delete;
    ~Hold();

   private:
    Sharing* sharing_;
  };

  // Also true if the catalog fails: a new layer only costs space, but a change in place cannot be undone.
  bool is_shared() const;
  // Called when a layer above this one was deleted or detached.
  void record_erased();

 private:
  bool has_record() const REQUIRES(mutex_);

  const catalog::Catalog& catalog_;
  const LayerId layer_;
  mutable Mutex mutex_;
  std::size_t holds_ GUARDED_BY(mutex_) = 0;
  mutable std::optional<bool> has_record_ GUARDED_BY(mutex_);  // nullopt: not looked up yet
};

}  // namespace rekeyfs::blocks
