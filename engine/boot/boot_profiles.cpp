#include "engine/boot/boot_profiles.h"

#include "engine/base/log.h"

namespace rekeyfs::boot {

using catalog::Table;
using catalog::WriteTxn;
using catalog::make_key;

Result<std::optional<BootProfile>> BootProfiles::profile_of(LayerId layer) const {
  RK_TRY_ASSIGN(const std::optional<std::string> bytes, store_.catalog().get(make_key(Table::profile, layer.value())));
  if (!bytes) return std::optional<BootProfile>{};
  RK_TRY_ASSIGN(BootProfile profile, BootProfile::decode(*bytes));
  return std::optional(std::move(profile));
}

Result<LayerId> BootProfiles::cloned_from(LayerId layer) const {
  RK_TRY_ASSIGN(const auto base, store_.layers().base_of(layer));
  return base.is_transformed ? LayerId{} : base.id;
}

Result<LayerId> BootProfiles::booted_by(LayerId top) const {
  RK_TRY_ASSIGN(const LayerId source, cloned_from(top));
  return source ? source : top;
}

Result<std::optional<BootProfiles::Found>> BootProfiles::look_for(LayerId top) const {
  for (LayerId layer = top; layer;) {
    RK_TRY_ASSIGN(std::optional<BootProfile> profile, profile_of(layer));
    if (profile) return std::optional(Found{layer, std::move(*profile)});
    RK_TRY_ASSIGN(layer, cloned_from(layer));
  }
  return std::optional<Found>{};
}

std::optional<BootProfiles::Found> BootProfiles::find(LayerId top) const {
  auto found = look_for(top);
  if (found) return std::move(*found);
  log::debug("the boot profile of layer {}: {}", top.value(), describe(found.error()));
  return std::nullopt;
}

void BootProfiles::put(WriteTxn& txn, LayerId layer, const BootProfile& profile) {
  txn.put(make_key(Table::profile, layer.value()), profile.encode());
}

Status BootProfiles::add(LayerId layer, const BootProfile& profile) const {
  const std::string key = make_key(Table::profile, layer.value());
  WriteTxn txn(store_.catalog());
  RK_TRY_ASSIGN(const std::optional<std::string> content, txn.get(make_key(Table::layer, layer.value())));
  RK_TRY_ASSIGN(const std::optional<std::string> older, txn.get(key));
  if (!content || older) return {};
  put(txn, layer, profile);
  RK_TRY(txn.commit());
  return {};
}

Status BootProfiles::erase(LayerId layer) const {
  WriteTxn txn(store_.catalog());
  txn.erase(make_key(Table::profile, layer.value()));
  RK_TRY(txn.commit());
  return {};
}

}  // namespace rekeyfs::boot
