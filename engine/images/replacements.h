// Replacements: renames nodes, and sees to it that content which replaces encrypted content is encrypted.
//
// Editors and rsync write a temporary file and rename it over the image. If that file is plain, because the policy of
// the directory has changed since, it is first replicated to itself under the key that the content of the image would
// get if it was overwritten (Content::policy_of_new_content). An exchange of two names replaces no content, so both
// images stay as they are. Thread-safe.
#pragma once

#include "engine/images/layer_swap.h"
#include "engine/images/open_images.h"
#include "engine/images/refusals.h"

namespace rekeyfs::images {

class Replacements {
 public:
  // All arguments must outlive it.
  Replacements(const LayerSwap::Parts& swaps, OpenImages& open, Refusals& refusals, Observer& observer)
      : swaps_(swaps), open_(open), refusals_(refusals), observer_(observer) {}

  // As Tree::rename. Errc::access_denied if the caller has no grant for the key that the plain image would get.
  Status rename(Ino parent, std::string_view name, Ino new_parent, std::string_view new_name, RenameMode how, const Caller& caller);

 private:
  Status encrypt(const names::Tree::Exposure& exposed, const Caller& caller);

  const LayerSwap::Parts swaps_;
  OpenImages& open_;
  Refusals& refusals_;
  Observer& observer_;
};

}  // namespace rekeyfs::images
