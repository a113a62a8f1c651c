// BootProfiles: stores boot profiles and finds the profile of an image.
//
// A profile belongs to a layer: all clones of an image share it, it outlives the image as long as a clone exists, and
// is deleted with the last one. It is copied only to a layer that will stand alone, that of a replica. Thread-safe.
#pragma once

#include <optional>

#include "engine/boot/boot_profile.h"
#include "engine/store/store.h"

namespace rekeyfs::boot {

class BootProfiles {
 public:
  explicit BootProfiles(store::Store& store) : store_(store) {}  // must outlive it

  struct Found {
    LayerId layer;  // layer that the profile belongs to
    BootProfile profile;
  };
  // The profile of the content of `top`: its own, or that of the nearest layer of which it is a clone. nullopt, too, if
  // it cannot be read; this is logged.
  std::optional<Found> find(LayerId top) const;
  // The layer that a boot of `top` is recorded for: the layer of which `top` is a clone, or `top` itself.
  Result<LayerId> booted_by(LayerId top) const;

  // Does nothing if the layer already has a profile or was deleted.
  Status add(LayerId layer, const BootProfile& profile) const;
  Status erase(LayerId layer) const;
  static void put(catalog::WriteTxn& txn, LayerId layer, const BootProfile& profile);

 private:
  Result<std::optional<BootProfile>> profile_of(LayerId layer) const;
  Result<LayerId> cloned_from(LayerId layer) const;  // 0: it is not a clone
  Result<std::optional<Found>> look_for(LayerId top) const;

  store::Store& store_;
};

}  // namespace rekeyfs::boot
