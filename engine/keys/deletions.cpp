#include "engine/keys/deletions.h"

#include <algorithm>

#include "engine/base/delay.h"

namespace rekeyfs::keys {
namespace {

std::string record_key(const kms::KeyId& key) { return catalog::make_key(catalog::Table::deletion, ByteView(key)); }

}  // namespace

Result<Timestamp> Deletions::minimum() const {
  RK_TRY_ASSIGN(const names::InodeRecord root, tree_.get(kRootIno));
  return root.min_deletion_delay.value_or(names::kUsualDeletionDelay);
}

// The clock is saved first: after a kill, the store time must not be before the time from which the delay counts.
Result<Timestamp> Deletions::schedule(const kms::KeyId& key, Timestamp delay) {
  RK_TRY(store_.clock().save());
  const Timestamp wall = store_.clock().wall_time() + delay;
  RK_TRY(put(key, wall, store_.clock().store_time() + delay));
  return wall;
}

Status Deletions::forget(const kms::KeyId& key) {
  catalog::WriteTxn txn(store_.catalog());
  txn.erase(record_key(key));
  RK_TRY(txn.commit());
  return {};
}

Result<bool> Deletions::is_due(const kms::KeyInfo& key) const {
  RK_TRY_ASSIGN(const std::optional<Timestamp> at, due(key));
  return at && *at <= store_.clock().store_time() && key.deletion <= store_.clock().wall_time();
}

Result<Timestamp> Deletions::earliest(const kms::KeyInfo& key) const {
  RK_TRY_ASSIGN(const std::optional<Timestamp> at, due(key));
  if (!at) return key.deletion;
  return std::max(key.deletion, store_.clock().wall_time() + std::max<Timestamp>(*at - store_.clock().store_time(), 0));
}

Result<bool> Deletions::adopt(const kms::KeyInfo& key) {
  RK_TRY_ASSIGN(const std::optional<Timestamp> at, due(key));
  if (at) return false;
  RK_TRY_ASSIGN(const Timestamp least, minimum());
  const Timestamp left = std::max(key.deletion - store_.clock().wall_time(), least);
  RK_TRY(put(key.id, key.deletion, store_.clock().store_time() + left));
  return true;
}

Result<std::optional<Timestamp>> Deletions::after_setback(const kms::KeyInfo& key) {
  RK_TRY_ASSIGN(const std::optional<Timestamp> at, due(key));
  if (!at) return std::nullopt;
  const Timestamp wall = store_.clock().wall_time() + std::max<Timestamp>(*at - store_.clock().store_time(), 0);
  if (wall >= key.deletion) return std::nullopt;
  RK_TRY(put(key.id, wall, *at));
  return wall;
}

Result<std::optional<Timestamp>> Deletions::due(const kms::KeyInfo& key) const {
  RK_TRY_ASSIGN(const auto record, store_.catalog().get(record_key(key.id)));
  if (!record) return std::nullopt;
  Reader in(*record);
  const Timestamp wall = in.get_time(), at = in.get_time();
  if (!in.finished() || wall != key.deletion) return std::nullopt;
  return at;
}

Status Deletions::put(const kms::KeyId& key, Timestamp wall, Timestamp due) {
  catalog::WriteTxn txn(store_.catalog());
  txn.put(record_key(key), Writer().put_time(wall).put_time(due).take());
  RK_TRY(txn.commit());
  return {};
}

}  // namespace rekeyfs::keys
