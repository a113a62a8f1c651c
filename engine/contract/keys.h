// Keys: the master keys of an open store, and the keys of its directories. Thread-safe; nothing throws.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/base/ids.h"
#include "engine/base/result.h"
#include "engine/types/caller.h"
#include "engine/types/key_facts.h"
#include "engine/types/rotation_plan.h"

namespace rekeyfs {

class Keys {
 public:
  virtual ~Keys() = default;

  virtual Result<KeyFacts> create(std::string_view alias, const Caller& caller) = 0;
  virtual Result<std::vector<KeyFacts>> list() = 0;
  virtual Result<KeyFacts> find(std::string_view alias_or_id) = 0;
  // For the owner of the key and root; Errc::not_permitted otherwise. Errc::busy lists the images that need the key.
  virtual Result<KeyFacts> change(std::string_view alias_or_id, const KeyChange& change, const Caller& caller) = 0;
  // The images that need the key, by path.
  virtual Result<std::vector<KeyUse>> uses(std::string_view alias_or_id) = 0;
  // Changes the policy of the directory, and has its images, and those of subdirectories with the same policy, encrypted
  // anew in the background, readable and writable meanwhile. For the owner of the directory and root. Errc::no_space, and
  // nothing has changed, if there is not room for it.
  virtual Result<RotationPlan> rotate_directory(Ino directory, std::string_view alias_or_id, const Caller& caller) = 0;
  // What that would do. Changes nothing.
  virtual Result<RotationPlan> plan_rotation(Ino directory, std::string_view alias_or_id, const Caller& caller) = 0;
};

}  // namespace rekeyfs
