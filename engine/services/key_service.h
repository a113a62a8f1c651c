// KeyService: implements Keys with KeyLife, for master keys, and Rotator, for the keys of directories.
#pragma once

#include "engine/contract/keys.h"
#include "engine/images/refusals.h"
#include "engine/images/rotator.h"
#include "engine/keys/key_life.h"
#include "engine/keys/key_uses.h"
#include "engine/types/caller.h"
#include "engine/types/key_facts.h"

namespace rekeyfs::services {

class KeyService final : public Keys {
 public:
  // All arguments must outlive the service.
  KeyService(store::Store& store, keys::KeyLife& life, const keys::KeyUses& uses, images::Rotator& rotator,
             images::Refusals& refusals)
      : store_(store), life_(life), uses_(uses), rotator_(rotator), refusals_(refusals) {}

  Result<KeyFacts> create(std::string_view alias, const Caller& caller) override;
  Result<std::vector<KeyFacts>> list() override;
  Result<KeyFacts> find(std::string_view alias_or_id) override;
  Result<KeyFacts> change(std::string_view alias_or_id, const KeyChange& change, const Caller& caller) override;
  void record_refusal(std::string_view alias_or_id, const Caller& caller, const Error& reason) override;
  Result<std::vector<KeyUse>> uses(std::string_view alias_or_id) override;
  Result<RotationPlan> rotate_directory(Ino directory, std::string_view alias_or_id, const Caller& caller) override;
  Result<RotationPlan> plan_rotation(Ino directory, std::string_view alias_or_id, const Caller& caller) override;

 private:
  // Passes the outcome of an order on.
  template <typename Outcome>
  Outcome recorded(Outcome outcome, std::string_view alias_or_id, const Caller& caller) {
    if (!outcome) record_refusal(alias_or_id, caller, outcome.error());
    return outcome;
  }
  KeyFacts shown(const kms::KeyInfo& key) const;

  store::Store& store_;
  keys::KeyLife& life_;
  const keys::KeyUses& uses_;
  images::Rotator& rotator_;
  images::Refusals& refusals_;
};

}  // namespace rekeyfs::services
