#include "engine/images/replacements.h"

namespace rekeyfs::images {

// Repeats if another image has taken one of the names in the meantime.
Status Replacements::rename(Ino parent, std::string_view name, Ino new_parent, std::string_view new_name, RenameMode how,
                            const Caller& caller) {
  for (;;) {
    RK_TRY_ASSIGN(const auto exposed, swaps_.tree.rename(parent, name, new_parent, new_name, how));
    if (!exposed) return {};
    RK_TRY(encrypt(*exposed, caller));
  }
}

Status Replacements::encrypt(const names::Tree::Exposure& exposed, const Caller& caller) {
  RK_TRY(refusals_.check_key(exposed.key, caller, [&] { return swaps_.tree.path_of(exposed.image); }));
  RK_TRY(swaps_.store.may_add());
  RK_TRY_ASSIGN(const ImageHold image, open_.open(exposed.image));
  RK_TRY(LayerSwap::rekey(swaps_, *image, exposed.key, caller.uid));
  announce_permissions(*image, observer_);
  return {};
}

}  // namespace rekeyfs::images
