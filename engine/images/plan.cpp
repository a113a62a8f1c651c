// Copies with everything said explicitly: what a new image becomes instead of what its directory says, and what a copy
// would do before it is made.
#include <algorithm>

#include "engine/images/images.h"
#include "engine/replication/transform_rate.h"
#include "engine/types/attributes.h"
#include "engine/types/caller.h"
#include "engine/types/event.h"
#include "engine/types/open_file.h"
#include "engine/types/replication_plan.h"
#include "engine/types/target_choice.h"
#include "engine/types/transform_rate.h"

namespace rekeyfs::images {

using names::InodeRecord;

namespace {

// What a rule says about a key, and not a disk.
bool is_refusal(Errc code) { return code == Errc::no_key || code == Errc::key_revoked || code == Errc::access_denied; }

constexpr std::size_t kRecentReplications = 10;
constexpr std::uint64_t kTellingBytes = 4u << 20;  // smaller replications are over before their rate says anything

}  // namespace

// --- the key of a new image ------------------------------------------------------------------------------------

Result<std::optional<kms::KeyId>> Images::key_of(const TargetChoice& choice, Ino directory) const {
  if (choice.by == TargetChoice::By::plain) return std::optional<kms::KeyId>{};
  if (choice.by == TargetChoice::By::key) {
    RK_TRY_ASSIGN(const kms::KeyInfo info, store_.keys().find(choice.key));
    return std::optional(info.id);
  }
  RK_TRY_ASSIGN(const InodeRecord inode, tree_.get(directory));
  if (inode.kind != NodeKind::directory) return fail(Errc::not_directory);
  return inode.policy.key;
}

Status Images::choose_target(OpenFile& file, const TargetChoice& choice, const Caller& caller) {
  RK_TRY(may_change(file));
  if (choice.by == TargetChoice::By::policy && !choice.fast_create) return {};  // as it was created
  Image& image = *file.image;
  Status chosen;
  {
    UniqueLock lock(image.mutex);
    if (!file.created || image.truncating || image.top->size() > 0 || image.top->base())
      return fail(Errc::not_permitted,
                  "what an image becomes is chosen by whoever creates it, before it has content: replicate it instead");
    if (choice.fast_create) file.fast_create = true;
    const auto key = key_of(choice, file.parent);
    chosen = key ? keys::may_use(store_.keys(), *key, caller) : fail(key.error());
    names::Policy policy;
    policy.fast_create = file.fast_create.load();
    if (key) policy.key = *key;
    if (chosen && (policy.key != image.top->made_as().key || choice.fast_create)) chosen = replace_content(image, policy);
  }
  if (chosen) {
    if (observer_) observer_->content_changed(image.ino);  // its permissions
    return {};
  }
  if (!is_refusal(chosen.error().code)) return chosen;
  return fail(refuse(file, refusal_event(tree_.path_of(image.ino), caller, chosen.error())));
}

std::optional<Error> Images::refusal_of(OpenFile& file) {
  Lock lock(file.mutex);
  return file.refused;
}

// --- what a copy would do --------------------------------------------------------------------------------------

// All layers together: more than a reader sees where a younger one has taken an older one's blocks over.
Result<std::uint64_t> Images::stored_of(LayerId top) const {
  std::uint64_t stored = 0;
  for (LayerId id = top; id;) {
    RK_TRY_ASSIGN(const auto sizes, store_.layers().sizes_of(id));
    RK_TRY_ASSIGN(const blocks::LayerRecord record, store_.layers().record_of(id));
    stored += sizes.stored;
    id = record.base;
  }
  return stored;
}

Result<ReplicationPlan> Images::plan(OpenFile& source, Ino directory, const TargetChoice& choice, const Caller& caller) {
  const Ino ino = source.image->ino;
  RK_TRY_ASSIGN(const InodeRecord from, tree_.get(ino));
  RK_TRY_ASSIGN(const blocks::LayerRecord layer, store_.layers().record_of(from.image.layer));
  ReplicationPlan plan;
  auto rule = [&](const Status& status) {
    if (!status) plan.refusals.push_back(status.error());
    return status.has_value();
  };
  const auto key = key_of(choice, directory);
  if (!key && key.error().code != Errc::no_key) return fail(key.error());
  if (key) rule(keys::may_use(store_.keys(), *key, caller));
  else plan.refusals.push_back(key.error());
  const bool same_key = key && *key == layer.key;
  RK_TRY_ASSIGN(plan.size, size_of(ino, from));
  if (plan.size > 0) {  // of an empty image there is nothing to copy: nobody asks
    rule(type_rule(from));
    rule(state_rule(ino, from, same_key));
    if (!same_key) rule(keys::may_use(store_.keys(), layer.key, caller));
  }
  RK_TRY_ASSIGN(const InodeRecord parent, tree_.get(directory));
  const bool may_wrap = (choice.fast_create || parent.policy.fast_create) && from.image.disk != names::DiskState::disk;
  if (may_wrap && plan.size > 0 && plan.refusals.empty()) {
    RK_TRY_ASSIGN(const std::shared_ptr<blocks::Layer> content, store_.layers().get(from.image.layer));
    const auto inside = look_inside(content);
    if (!inside && inside.error().code != Errc::wrong_medium) return fail(inside.error());
    if (!inside) plan.refusals.push_back(inside.error());
    if (inside && inside->is_wrapped()) {
      plan.format = formats::name_of(inside->format);
      plan.size = inside->size;
    }
  }
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
  return plan;
}

TransformRate Images::transform_rate(OpenFile& source) {
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
    SharedLock lock(source.image->mutex);
    layer = source.image->top;
  }
  const auto measured = replication::measure_transform_rate(*layer);
  return {measured ? *measured : 0, TransformRate::From::measured};
}

}  // namespace rekeyfs::images
