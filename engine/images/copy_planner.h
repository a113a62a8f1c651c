// CopyPlanner: says what a copy would do without making it. Changes nothing. Thread-safe.
#pragma once

#include "engine/images/copies.h"
#include "engine/types/replication_plan.h"
#include "engine/types/target_choice.h"
#include "engine/types/transform_rate.h"

namespace rekeyfs::images {

class CopyPlanner {
 public:
  // All arguments must outlive it.
  CopyPlanner(store::Store& store, const names::Tree& tree, const ImageStatus& status, const Copies& copies, quota::QuotaBook& quotas, audit::AuditLog& audit)
      : store_(store), tree_(tree), status_(status), copies_(copies), quotas_(quotas), audit_(audit) {}

  // The key of an image that is created in the directory. Errc::no_key if it does not exist.
  Result<std::optional<kms::KeyId>> key_of(const TargetChoice& choice, Ino directory) const;
  Result<ReplicationPlan> plan(Ino source, Ino directory, const TargetChoice& choice, const Caller& caller) const;
  TransformRate transform_rate(const Image& source) const;

 private:
  Result<std::uint64_t> stored_of(LayerId top) const;
  // Whether the caller may copy content from the source's key to the target's.
  Status may_take(const std::optional<kms::KeyId>& source, const Result<std::optional<kms::KeyId>>& target, const Caller& caller) const;
  // What the copy becomes with fast create. Adds a refusal to the plan.
  Status plan_disk(const names::InodeRecord& from, ReplicationPlan& plan) const;

  store::Store& store_;
  const names::Tree& tree_;
  const ImageStatus& status_;
  const Copies& copies_;
  quota::QuotaBook& quotas_;
  audit::AuditLog& audit_;
};

}  // namespace rekeyfs::images
