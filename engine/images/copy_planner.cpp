#include "engine/images/copy_planner.h"

#include <algorithm>

#include "engine/keys/key_access.h"
#include "engine/replication/transform_rate.h"

namespace rekeyfs::images {

using names::InodeRecord;

namespace {

constexpr std::size_t kRecentReplications = 10;
constexpr std::uint64_t kTellingBytes = 4u << 20;  // smaller replications are too short to measure a rate

}  // namespace

Result<std::optional<kms::KeyId>> CopyPlanner::key_of(const TargetChoice& choice, Ino directory) const {
  if (choice.by == TargetChoice::By::plain) return std::optional<kms::KeyId>{};
  if (choice.by == TargetChoice::By::key) {
    RK_TRY_ASSIGN(const kms::KeyInfo info, store_.keys().find(choice.key));
    return std::optional(info.id);
  }
  RK_TRY_ASSIGN(const InodeRecord inode, tree_.get(directory));
  if (inode.kind != NodeKind::directory) return fail(Errc::not_directory);
  return inode.policy.key;
}

// Sum over all layers: more than a reader sees if a younger layer supersedes blocks of an older one.
Result<std::uint64_t> CopyPlanner::stored_of(LayerId top) const {
  std::uint64_t stored = 0;
  RK_TRY_ASSIGN(const auto chain, store_.layers().chain_of(top));
  for (const auto& at : chain) stored += at.sizes.stored;
  return stored;
}

Result<ReplicationPlan> CopyPlanner::plan(Ino source, Ino directory, const TargetChoice& choice, const Caller& caller) const {
  RK_TRY_ASSIGN(const InodeRecord from, tree_.get(source));
  RK_TRY_ASSIGN(const blocks::LayerRecord layer, store_.layers().record_of(from.image.layer));
  ReplicationPlan plan;
  auto rule = [&](const Status& status) {
    if (!status) plan.refusals.push_back(status.error());
  };
  const auto key = key_of(choice, directory);
  if (!key && key.error().code != Errc::no_key) return fail(key.error());
  if (!key) plan.refusals.push_back(key.error());
  else rule(*key ? keys::may_use(store_.keys(), *key, caller) : tree_.placement().may_hold_plain(directory));
  const bool same_key = key && *key == layer.key;
  RK_TRY_ASSIGN(plan.size, status_.size_of(source, from));
  if (plan.size > 0) {  // copying an empty image transforms nothing
    rule(Copies::type_rule(from));
    rule(copies_.state_rule(source, from, same_key));
    if (!same_key) rule(may_take(layer.key, key, caller));
  }
  RK_TRY_ASSIGN(const InodeRecord parent, tree_.get(directory));
  const bool may_wrap = (choice.fast_create || parent.policy.fast_create) && from.image.disk != names::DiskState::disk;
  if (may_wrap && plan.size > 0 && plan.refusals.empty()) RK_TRY(plan_disk(from, plan));
  plan.key_before = audit::key_named(store_.keys(), layer.key).alias;
  plan.key_after = key ? audit::key_named(store_.keys(), *key).alias : choice.key;
  plan.transforms = !same_key || !plan.format.empty();
  if (plan.transforms) {
    RK_TRY_ASSIGN(const std::uint64_t stored, stored_of(from.image.layer));
    plan.bytes_to_transform = std::min(stored, plan.size);
    plan.space_needed = plan.bytes_to_transform;
  }
  RK_TRY_ASSIGN(const io::Space space, store_.storage().space());
  plan.space_available = space.available;
  rule(quotas_.check_below(directory, {plan.space_needed, 1}));
  return plan;
}

// `target`: the key of the copy, if it could be found.
Status CopyPlanner::may_take(const std::optional<kms::KeyId>& source, const Result<std::optional<kms::KeyId>>& target,
                             const Caller& caller) const {
  RK_TRY(keys::may_use(store_.keys(), source, caller));
  const bool declassifies = source && target && !*target;
  return declassifies ? keys::may_declassify(store_.keys(), *source, caller) : Status{};
}

Status CopyPlanner::plan_disk(const InodeRecord& from, ReplicationPlan& plan) const {
  RK_TRY_ASSIGN(const std::shared_ptr<blocks::Layer> content, store_.layers().get(from.image.layer));
  const auto inside = FastCreate::look_inside(content);
  if (!inside && inside.error().code != Errc::wrong_medium) return fail(inside.error());
  if (!inside) plan.refusals.push_back(inside.error());
  if (!inside || !inside->is_wrapped()) return {};
  plan.format = formats::name_of(inside->format);
  plan.size = inside->size;
  return {};
}

TransformRate CopyPlanner::transform_rate(const Image& source) const {
  EventQuery query;
  query.kind = EventKind::replication_completed;
  query.most = kRecentReplications;
  double bytes = 0, seconds = 0;
  if (const auto recent = audit_.find(query)) {
    for (const Event& event : *recent) {
      if (event.nanoseconds == 0 || event.bytes < kTellingBytes) continue;
      bytes += static_cast<double>(event.bytes);
      seconds += static_cast<double>(event.nanoseconds) / 1e9;
    }
  }
  if (seconds > 0) return {bytes / seconds, TransformRate::From::recent};
  std::shared_ptr<blocks::Layer> layer;
  {
    SharedLock lock(source.mutex);
    layer = source.top;
  }
  const auto measured = replication::measure_transform_rate(*layer);
  return {measured.value_or(0), TransformRate::From::measured};
}

}  // namespace rekeyfs::images
