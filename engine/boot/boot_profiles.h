// BootProfiles: where boot profiles are kept, and whose they are.
//
// A profile belongs to content, and content is in layers: so all clones of an image share one, it outlives the image as
// long as there is a clone, and goes with the last of them. Only a layer that will stand alone, a replica's, is given a
// copy. Thread-safe.
#pragma once

#include <optional>

#include "engine/boot/boot_profile.h"
#include "engine/store/store.h"

namespace rekeyfs::boot {

class BootProfiles {
 public:
  explicit BootProfiles(store::Store& store) : store_(store) {}  // outlives it

  struct Found {
    LayerId layer;  // that has it
    BootProfile profile;
  };
  // The profile of the content of `top`: its own, or that of the nearest layer that it is a clone of. None, too, if it
  // cannot be read: then the log says why.
  std::optional<Found> find(LayerId top) const;
  // The layer whose boot a reader of `top` makes: the one that `top` is a clone of, or itself.
  Result<LayerId> booted_by(LayerId top) const;

  // The first one counts: nothing happens if the layer has a profile by now, or is gone.
  Status add(LayerId layer, const BootProfile& profile) const;
  Status erase(LayerId layer) const;
  static void put(catalog::WriteTxn& txn, LayerId layer, const BootProfile& profile);

 private:
  Result<std::optional<BootProfile>> profile_of(LayerId layer) const;
  Result<LayerId> cloned_from(LayerId layer) const;  // 0: it is no clone
  Result<std::optional<Found>> look_for(LayerId top) const;

  store::Store& store_;
};

}  // namespace rekeyfs::boot
