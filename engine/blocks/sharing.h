// Sharing: whether others read from a layer, so that its content must not change.
//
// Two things answer yes: a hold, which is an object of this process (see BaseRef), and a layer on record that names this one as
// its base, open or not. The catalog is asked for the records when there is no hold, and its answer is kept until a hold ends
// or a record is erased. That is enough, because a record is put only while its new layer, which is open, has a hold. Thread-safe.
#pragma once

#include <optional>

#include "engine/base/ids.h"
#include "engine/base/mutex.h"
#include "engine/catalog/catalog.h"

namespace rekeyfs::blocks {

class Sharing {
 public:
  // The catalog outlives it.
  Sharing(const catalog::Catalog& catalog, LayerId layer) : catalog_(catalog), layer_(layer) {}

  // Begins with the object and ends with it.
  class Hold {
   public:
    explicit Hold(Sharing& sharing);
    Hold(Hold&& other) noexcept;
    Hold& operator=(Hold&&) = delete;
    ~Hold();

   private:
    Sharing* sharing_;
  };

  // True also if the catalog does not answer: a change in place cannot be undone, a new layer only takes space.
  bool is_shared() const;
  // A layer over this one was deleted, or stands alone now.
  void record_erased();

 private:
  bool has_record() const REQUIRES(mutex_);

  const catalog::Catalog& catalog_;
  const LayerId layer_;
  mutable Mutex mutex_;
  std::size_t holds_ GUARDED_BY(mutex_) = 0;
  mutable std::optional<bool> has_record_ GUARDED_BY(mutex_);  // nullopt: to be looked up
};

}  // namespace rekeyfs::blocks
