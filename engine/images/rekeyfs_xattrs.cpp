#include "engine/images/rekeyfs_xattrs.h"

#include <algorithm>
#include <cstdio>

#include <nlohmann/json.hpp>

#include "engine/base/delay.h"
#include "engine/base/utf8.h"
#include "engine/formats/format.h"
#include "engine/keys/key_access.h"
#include "engine/quota/quota_text.h"
#include "engine/types/attributes.h"
#include "engine/types/image_state.h"

namespace rekeyfs::images {

using names::InodeRecord;

// --- the table -------------------------------------------------------------------------------------------------

const RekeyfsXattrs::Row RekeyfsXattrs::kOnDirectory[] = {
    {"encrypted_only", &RekeyfsXattrs::policy_encrypted_only, &RekeyfsXattrs::parse_policy_encrypted_only,
     [](const InodeRecord& inode) { return inode.policy.encrypted_only; },
     [](InodeRecord& inode) { inode.policy.encrypted_only = false; }, true},
    {"encryption", &RekeyfsXattrs::policy_encryption},
    {"fast_create", &RekeyfsXattrs::policy_fast_create, &RekeyfsXattrs::parse_policy_fast_create,
     [](const InodeRecord& inode) { return inode.policy.fast_create; }, [](InodeRecord& inode) { inode.policy.fast_create = false; }},
    {"key", &RekeyfsXattrs::policy_key, &RekeyfsXattrs::parse_policy_key,
     [](const InodeRecord& inode) { return inode.policy.key.has_value(); }, [](InodeRecord& inode) { inode.policy.key.reset(); }},
    {"key_id", &RekeyfsXattrs::policy_key_id},
    {"min_deletion_delay", &RekeyfsXattrs::min_deletion_delay, &RekeyfsXattrs::parse_min_deletion_delay,
     [](const InodeRecord& inode) { return inode.min_deletion_delay.has_value(); }, [](InodeRecord& inode) { inode.min_deletion_delay.reset(); },
     true, true},
    {"quota", &RekeyfsXattrs::quota, &RekeyfsXattrs::parse_quota, [](const InodeRecord& inode) { return inode.quota.is_set(); },
     [](InodeRecord& inode) { inode.quota = {}; }, true, false, &RekeyfsXattrs::prepare_quota},
    {"type", &RekeyfsXattrs::policy_type, &RekeyfsXattrs::parse_policy_type,
     [](const InodeRecord& inode) { return inode.policy.type != names::ImageType::none; },
     [](InodeRecord& inode) { inode.policy.type = names::ImageType::none; }},
    {"usage", &RekeyfsXattrs::usage},
};

const RekeyfsXattrs::Row RekeyfsXattrs::kOnImage[] = {
    {"digest", &RekeyfsXattrs::digest},
    {"encryption", &RekeyfsXattrs::encryption},
    {"error", &RekeyfsXattrs::error},
    {"fast_create", &RekeyfsXattrs::fast_create},
    {"format", &RekeyfsXattrs::format},
    {"id", &RekeyfsXattrs::id},
    {"key", &RekeyfsXattrs::key},
    {"key_id", &RekeyfsXattrs::key_id},
    {"progress", &RekeyfsXattrs::progress},
    {"protected", &RekeyfsXattrs::protection, &RekeyfsXattrs::parse_protection,
     [](const InodeRecord& inode) { return inode.image.is_protected; }, [](InodeRecord& inode) { inode.image.is_protected = false; }},
    {"receipt", &RekeyfsXattrs::receipt},
    {"source", &RekeyfsXattrs::source},
    {"status", &RekeyfsXattrs::status},
    {"stored", &RekeyfsXattrs::stored},
    {"type", &RekeyfsXattrs::type, &RekeyfsXattrs::parse_type,
     [](const InodeRecord& inode) { return inode.image.type != names::ImageType::none; },
     [](InodeRecord& inode) { inode.image.type = names::ImageType::none; }},
};

std::span<const RekeyfsXattrs::Row> RekeyfsXattrs::rows_of(const InodeRecord& inode) {
  switch (inode.kind) {
    case NodeKind::directory: return kOnDirectory;
    case NodeKind::image: return kOnImage;
    case NodeKind::symlink: break;
  }
  return {};
}

const RekeyfsXattrs::Row* RekeyfsXattrs::find(const InodeRecord& inode, std::string_view name) {
  const auto rows = rows_of(inode);
  const bool is_root = inode.parent == kRootIno && inode.name.empty();
  const auto row = std::find_if(rows.begin(), rows.end(), [&](const Row& one) { return one.name == name && (is_root || !one.of_root); });
  return row == rows.end() ? nullptr : &*row;
}

// --- the calls -------------------------------------------------------------------------------------------------

namespace {

constexpr std::size_t kMaxValue = 255;

Status check_value(std::string_view value) {
  if (value.empty() || value.size() > kMaxValue || value.find('\0') != std::string_view::npos || !is_utf8(value))
    return fail(Errc::invalid, "the value must be 1 to 255 bytes of UTF-8 without NUL");
  return {};
}

Status not_settable(std::string_view name) {
  return fail(Errc::not_permitted, "user.rekeyfs." + std::string(name) + " cannot be set: it is read-only or unknown");
}

Result<bool> parse_switch(std::string_view value) {
  if (value == "1") return true;
  if (value == "0") return false;
  return fail(Errc::invalid, "the value must be 1 or 0");
}

Result<names::ImageType> type_named(std::string_view value) {
  const auto type = names::image_type_from(value);
  if (!type) return fail(Errc::invalid, "the type must be system-disk, data-disk or full-ecs");
  return *type;
}

Result<std::string> or_absent(std::string_view text) {
  if (text.empty()) return fail(Errc::no_attribute);
  return std::string(text);
}

Result<std::string> id_or_absent(const std::optional<kms::KeyId>& key) { return or_absent(key ? to_hex(*key) : ""); }
std::string encryption_by(const std::optional<kms::KeyId>& key) { return key ? "kms" : "none"; }

// The values of an attribute before and after a change, "" for none.
std::string change_text(std::string_view name, const std::string& before, const std::string& after) {
  const std::string attribute = "user.rekeyfs." + std::string(name);
  if (after.empty()) return attribute + " removed, it was " + before;
  return attribute + " set to " + after + (before.empty() ? "" : ", it was " + before);
}

}  // namespace

Result<std::string> RekeyfsXattrs::get(Ino ino, std::string_view name) const {
  return tree_.look_at(ino, [&](const InodeRecord& inode) -> Result<std::string> {
    const Row* const row = find(inode, name);
    if (!row) return fail(Errc::no_attribute);
    return (this->*row->get)(Node{ino, inode});
  });
}

Status RekeyfsXattrs::set(Ino ino, std::string_view name, std::string_view value, XattrMode how, const Caller& caller) {
  RK_TRY_ASSIGN(const InodeRecord seen, tree_.get(ino));
  const Row* const row = find(seen, name);
  if (!row || !row->parse) return not_settable(name);
  RK_TRY(check_value(value));
  RK_TRY_ASSIGN(const Edit edit, (this->*row->parse)(value));
  return change(ino, *row, caller, [&](InodeRecord& inode) -> Status {
    const bool there = row->is_set(inode);
    if (how == XattrMode::create && there) return fail(Errc::exists);
    if (how == XattrMode::replace && !there) return fail(Errc::no_attribute);
    edit(inode);
    return {};
  });
}

Status RekeyfsXattrs::remove(Ino ino, std::string_view name, const Caller& caller) {
  RK_TRY(get(ino, name));
  RK_TRY_ASSIGN(const InodeRecord seen, tree_.get(ino));
  const Row* const row = find(seen, name);
  if (!row || !row->clear) return not_settable(name);
  return change(ino, *row, caller, [&](InodeRecord& inode) -> Status {
    if (!row->is_set(inode)) return fail(Errc::no_attribute, "the attribute is set on a directory above: remove it there");
    row->clear(inode);
    return {};
  });
}

Status RekeyfsXattrs::change(Ino ino, const Row& row, const Caller& caller, const std::function<Status(InodeRecord&)>& edit) {
  RK_TRY(store_.may_write());
  if (row.by_operators) {
    if (!caller.is_operator)
      return fail(Errc::not_permitted, "user.rekeyfs." + std::string(row.name) + " is set and removed by operators of the store only");
    RK_TRY(store_.require(store::Feature::rules));
  }
  if (row.prepare) RK_TRY((this->*row.prepare)());
  Event event;
  event.kind = EventKind::policy_changed;
  event.uid = caller.uid;
  event.path = tree_.path_of(ino);
  catalog::WriteTxn txn(store_.catalog());
  RK_TRY_ASSIGN(InodeRecord inode, names::Tree::get(txn, ino));
  if (!caller.is_operator && caller.uid != inode.uid)
    return fail(Errc::not_permitted, "only the owner or an operator may set the user.rekeyfs attributes of a file or directory");
  const std::optional<kms::KeyId> key_before = inode.policy.key;
  const auto value = [&] { return row.is_set(inode) ? (this->*row.get)(Node{ino, inode}).value_or("") : ""; };
  const std::string value_before = value();
  const names::Quota quota_before = inode.quota;
  RK_TRY(edit(inode));
  if (inode.policy.key != key_before) {
    RK_TRY(keys::may_release(store_.keys(), key_before, caller));
    RK_TRY(keys::may_use(store_.keys(), inode.policy.key, caller));
  }
  if (key_before && !inode.policy.key) RK_TRY(tree_.placement().may_hold_plain(ino));
  const bool changes_quota = inode.quota != quota_before;
  if (changes_quota) put_quota_index(txn, ino, inode);
  // A key that is set by hand ends a rotation under way, which would change it back.
  if (inode.policy.key != key_before) txn.erase(catalog::make_key(catalog::Table::rotation, ino.value()));
  inode.changed = now();
  names::Tree::put(txn, ino, inode);
  if (const std::string value_now = value(); value_now != value_before) {
    if (changes_quota) event.kind = EventKind::quota_changed;
    event.text = change_text(row.name, value_before, value_now);
    event.key_before = audit::key_named(store_.keys(), key_before);
    event.key = audit::key_named(store_.keys(), inode.policy.key);
    RK_TRY(audit_.add(txn, std::move(event)));
  }
  RK_TRY(txn.commit());
  if (changes_quota) quotas_.limits_changed();
  return {};
}

std::vector<std::string> RekeyfsXattrs::names_with_values(Ino ino) const {
  std::vector<std::string> names;
  const auto inode = tree_.get(ino);
  if (!inode) return names;
  for (const Row& row : rows_of(*inode))
    if (get(ino, row.name)) names.push_back(std::string(kRekeyfsPrefix) + std::string(row.name));
  return names;
}

Result<std::string> RekeyfsXattrs::detected_mime_type(Ino ino) const {
  RK_TRY_ASSIGN(const std::string format, get(ino, "format"));
  return std::string(formats::mime_type_of(format));
}

Result<std::string> RekeyfsXattrs::alias_of(const std::optional<kms::KeyId>& key) const {
  if (!key) return fail(Errc::no_attribute);
  const auto info = store_.keys().find(*key);
  return info ? info->alias : to_hex(*key);  // only the id of a deleted key is left
}

// --- directories -----------------------------------------------------------------------------------------------

Result<std::string> RekeyfsXattrs::policy_key_id(const Node& node) const { return id_or_absent(node.policy().key); }
Result<std::string> RekeyfsXattrs::policy_encryption(const Node& node) const { return encryption_by(node.policy().key); }

Result<std::string> RekeyfsXattrs::policy_encrypted_only(const Node& node) const {
  RK_TRY_ASSIGN(const bool is_in_force, tree_.placement().is_encrypted_only(node.ino));
  return or_absent(is_in_force ? "1" : "");
}

Result<std::string> RekeyfsXattrs::policy_fast_create(const Node& node) const { return or_absent(node.policy().fast_create ? "1" : ""); }
Result<std::string> RekeyfsXattrs::policy_type(const Node& node) const { return or_absent(names::name_of(node.policy().type)); }

Result<std::string> RekeyfsXattrs::min_deletion_delay(const Node& node) const {
  return or_absent(node.inode.min_deletion_delay ? delay_text(*node.inode.min_deletion_delay) : "");
}

Result<RekeyfsXattrs::Edit> RekeyfsXattrs::parse_min_deletion_delay(std::string_view value) const {
  const auto delay = delay_from(value);
  if (!delay) return fail(Errc::invalid, "the value must be a number with s, m, h or d, and at most a year: 7d");
  return [delay](InodeRecord& inode) { inode.min_deletion_delay = *delay; };
}

Result<RekeyfsXattrs::Edit> RekeyfsXattrs::parse_policy_key(std::string_view value) const {
  RK_TRY_ASSIGN(const kms::KeyInfo info, store_.keys().find(value));
  if (info.state != kms::KeyState::enabled)
    return fail(Errc::key_revoked, "the key " + info.alias + " is " + std::string(kms::name_of(info.state)) + ": enable it first");
  return [id = info.id](InodeRecord& inode) { inode.policy.key = id; };
}

Result<RekeyfsXattrs::Edit> RekeyfsXattrs::parse_policy_fast_create(std::string_view value) const {
  RK_TRY_ASSIGN(const bool on, parse_switch(value));
  return [on](InodeRecord& inode) { inode.policy.fast_create = on; };
}

Result<RekeyfsXattrs::Edit> RekeyfsXattrs::parse_policy_encrypted_only(std::string_view value) const {
  RK_TRY_ASSIGN(const bool on, parse_switch(value));
  return [on](InodeRecord& inode) { inode.policy.encrypted_only = on; };
}

Result<RekeyfsXattrs::Edit> RekeyfsXattrs::parse_policy_type(std::string_view value) const {
  RK_TRY_ASSIGN(const names::ImageType type, type_named(value));
  return [type](InodeRecord& inode) { inode.policy.type = type; };
}

Result<std::string> RekeyfsXattrs::quota(const Node& node) const { return or_absent(quota::text_of(node.inode.quota)); }

Result<std::string> RekeyfsXattrs::usage(const Node& node) const {
  RK_TRY_ASSIGN(const auto standing, quotas_.standing_of(node.ino));
  return or_absent(standing ? quota::text_of(standing->used) : "");
}

Result<RekeyfsXattrs::Edit> RekeyfsXattrs::parse_quota(std::string_view value) const {
  RK_TRY_ASSIGN(const names::Quota quota, quota::parse(value));
  return [quota](InodeRecord& inode) { inode.quota = quota; };
}

void RekeyfsXattrs::put_quota_index(catalog::WriteTxn& txn, Ino ino, const InodeRecord& inode) const {
  const std::string key = catalog::make_key(catalog::Table::quota, ino.value());
  if (inode.quota.is_set()) txn.put(key, "");
  else txn.erase(key);
}

// --- images ----------------------------------------------------------------------------------------------------

Result<std::string> RekeyfsXattrs::status(const Node& node) const {
  return std::string(rekeyfs::name_of(status_.state_of(node.ino, node.inode)));
}

Result<std::string> RekeyfsXattrs::progress(const Node& node) const {
  const ImageState state = node.image().state;
  if (state == ImageState::normal || state == ImageState::normal_uninitialized) return std::string("100.0");
  const auto job = filler_.progress_of(node.ino);
  char text[16];
  std::snprintf(text, sizeof text, "%.1f", job ? job->percent() : 0);
  return std::string(text);
}

Result<std::string> RekeyfsXattrs::source(const Node& node) const {
  return or_absent(node.image().lineage ? to_uuid_text(node.image().lineage->source) : "");
}

Result<std::string> RekeyfsXattrs::type(const Node& node) const { return or_absent(names::name_of(node.image().type)); }
Result<std::string> RekeyfsXattrs::fast_create(const Node& node) const {
  return or_absent(node.image().disk == names::DiskState::disk ? "1" : "");
}
Result<std::string> RekeyfsXattrs::protection(const Node& node) const { return or_absent(node.image().is_protected ? "1" : ""); }
Result<std::string> RekeyfsXattrs::error(const Node& node) const {
  return or_absent(filler_.error_of(node.ino).value_or(node.image().error));
}

Result<std::string> RekeyfsXattrs::stored(const Node& node) const {
  RK_TRY_ASSIGN(const auto sizes, store_.layers().sizes_of(node.image().layer));
  return std::to_string(sizes.stored);
}

Result<std::string> RekeyfsXattrs::format(const Node& node) const {
  if (node.image().disk == names::DiskState::disk) return std::string(formats::name_of(formats::Format::raw));
  const auto findings = status_.findings_of(node.ino, node.inode);
  return or_absent(findings ? findings->format : "");
}

Result<std::string> RekeyfsXattrs::digest(const Node& node) const {
  const auto findings = status_.findings_of(node.ino, node.inode);
  return or_absent(findings && !status_.may_differ(node.ino) ? to_hex(findings->digest) : "");
}

// A clone has none: it shares the blocks of its source, and nothing was transformed.
Result<std::string> RekeyfsXattrs::receipt(const Node& node) const {
  using Json = nlohmann::ordered_json;  // keeps the order that the manual gives
  const auto& lineage = node.image().lineage;
  const auto findings = status_.findings_of(node.ino, node.inode);
  if (!lineage || lineage->completed == 0 || !findings || status_.may_differ(node.ino)) return fail(Errc::no_attribute);
  RK_TRY_ASSIGN(const std::optional<kms::KeyId> key_after, key_of_layer(node));
  if (lineage->key_before == key_after) return fail(Errc::no_attribute);
  const auto key = [](const std::optional<kms::KeyId>& id) { return id ? Json(to_hex(*id)) : Json(nullptr); };
  const Json receipt{{"source", to_uuid_text(lineage->source)},
                     {"key_before", key(lineage->key_before)},
                     {"key_after", key(key_after)},
                     {"digest", to_hex(findings->digest)},
                     {"replicated", time_text(lineage->replicated)},
                     {"completed", time_text(lineage->completed)}};
  return receipt.dump();
}

Result<std::optional<kms::KeyId>> RekeyfsXattrs::key_of_layer(const Node& node) const {
  RK_TRY_ASSIGN(const blocks::LayerRecord layer, store_.layers().record_of(node.image().layer));
  return layer.key;
}

Result<std::string> RekeyfsXattrs::key(const Node& node) const {
  RK_TRY_ASSIGN(const std::optional<kms::KeyId> id, key_of_layer(node));
  return alias_of(id);
}

Result<std::string> RekeyfsXattrs::key_id(const Node& node) const {
  RK_TRY_ASSIGN(const std::optional<kms::KeyId> id, key_of_layer(node));
  return id_or_absent(id);
}

Result<std::string> RekeyfsXattrs::encryption(const Node& node) const {
  RK_TRY_ASSIGN(const std::optional<kms::KeyId> id, key_of_layer(node));
  return encryption_by(id);
}

Result<RekeyfsXattrs::Edit> RekeyfsXattrs::parse_type(std::string_view value) const {
  RK_TRY_ASSIGN(const names::ImageType type, type_named(value));
  return [type](InodeRecord& inode) { inode.image.type = type; };
}

Result<RekeyfsXattrs::Edit> RekeyfsXattrs::parse_protection(std::string_view value) const {
  RK_TRY_ASSIGN(const bool on, parse_switch(value));
  return [on](InodeRecord& inode) { inode.image.is_protected = on; };
}

}  // namespace rekeyfs::images
