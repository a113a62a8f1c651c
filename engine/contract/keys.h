// Keys: the master keys of an open store, and the keys of its directories. Thread-safe; no function throws.
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

  // Errc::not_permitted if the caller is not an operator and has as many keys as OpenOptions::user_keys.
  virtual Result<KeyFacts> create(std::string_view alias, const Caller& caller) = 0;
  virtual Result<std::vector<KeyFacts>> list() = 0;
  virtual Result<KeyFacts> find(std::string_view alias_or_id) = 0;
  // Allowed for the owner of the key and operators; otherwise Errc::not_permitted, also for a deletion with less than
  // the store's least delay. Errc::busy says how many images need the key. To disable or delete takes effect at once,
  // even if a later step fails: see KeyFacts::warning.
  virtual Result<KeyFacts> change(std::string_view alias_or_id, const KeyChange& change, const Caller& caller) = 0;
  // Records in the audit log that an order about a key was refused for want of authority before it came to change().
  virtual void record_refusal(std::string_view alias_or_id, const Caller& caller, const Error& reason) = 0;
  // The images that need the key, ordered by path.
  virtual Result<std::vector<KeyUse>> uses(std::string_view alias_or_id) = 0;
  // Changes the policy of the directory and re-encrypts its images, and those in subdirectories with the same policy,
  // in the background; they stay readable and writable. Allowed for the owner of the directory and root.
  // Errc::no_space, with nothing changed, if there is not enough space.
  virtual Result<RotationPlan> rotate_directory(Ino directory, std::string_view alias_or_id, const Caller& caller) = 0;
  // What rotate_directory() would do. Changes nothing.
  virtual Result<RotationPlan> plan_rotation(Ino directory, std::string_view alias_or_id, const Caller& caller) = 0;
};

}  // namespace rekeyfs
