#include "engine/images/attributes.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include <nlohmann/json.hpp>

#include "engine/base/utf8.h"
#include "engine/formats/format.h"
#include "engine/types/attributes.h"
#include "engine/types/image_state.h"

namespace rekeyfs::images {

using names::InodeRecord;

namespace {

using Json = nlohmann::ordered_json;  // keeps the order that the manual gives

constexpr std::size_t kMostValue = 255;
constexpr std::array kOnDirectory{"key", "key_id", "encryption", "fast_create", "type"};
constexpr std::array kOnImage{"id", "status", "progress", "encryption", "key", "key_id", "source", "type", "fast_create", "protected", "error", "stored", "format", "digest", "receipt"};

Status check_value(std::string_view value) {
  if (value.empty() || value.size() > kMostValue || value.find('\0') != std::string_view::npos || !is_utf8(value))
    return fail(Errc::invalid, "a value is 1 to 255 bytes of UTF-8 without NUL");
  return {};
}

Result<bool> parse_switch(std::string_view value) {
  if (value == "1") return true;
  if (value == "0") return false;
  return fail(Errc::invalid, "the value is 1 or 0");
}

Result<names::ImageType> parse_type(std::string_view value) {
  const auto type = names::image_type_from(value);
  if (!type) return fail(Errc::invalid, "the type is system-disk, data-disk or full-ecs");
  return *type;
}

Status not_settable(std::string_view name) {
  return fail(Errc::not_permitted, "user.rekeyfs." + std::string(name) + " cannot be set: it is read-only or unknown");
}

// Has a user given the node this value, one of those that can be set?
bool is_set(const InodeRecord& inode, std::string_view name) {
  const bool directory = inode.kind == NodeKind::directory;
  if (name == "key") return inode.policy.key.has_value();
  if (name == "fast_create") return inode.policy.fast_create;
  if (name == "type") return (directory ? inode.policy.type : inode.image.type) != names::ImageType::none;
  return inode.image.is_protected;
}

Result<std::string> or_absent(std::string_view text) {
  if (text.empty()) return fail(Errc::no_attribute);
  return std::string(text);
}

}  // namespace

Result<std::string> OurAttributes::alias_of(const std::optional<kms::KeyId>& key) const {
  if (!key) return fail(Errc::no_attribute);
  const auto info = store_.keys().find(*key);
  return info ? info->alias : to_hex(*key);  // of a deleted key the id is left
}

Result<std::string> OurAttributes::get(Ino ino, std::string_view name) const {
  return tree_.look_at(ino, [&](const InodeRecord& inode) -> Result<std::string> {
    if (inode.kind == NodeKind::directory) return get_of_directory(inode, name);
    if (inode.kind == NodeKind::image) return get_of_image(ino, inode, name);
    return fail(Errc::no_attribute);
  });
}

Result<std::string> OurAttributes::get_of_directory(const InodeRecord& inode, std::string_view name) const {
  const names::Policy& policy = inode.policy;
  if (name == "key") return alias_of(policy.key);
  if (name == "key_id") return policy.key ? or_absent(to_hex(*policy.key)) : or_absent("");
  if (name == "encryption") return std::string(policy.key ? "kms" : "none");
  if (name == "fast_create") return or_absent(policy.fast_create ? "1" : "");
  if (name == "type") return or_absent(names::name_of(policy.type));
  return fail(Errc::no_attribute);
}

Result<std::string> OurAttributes::get_of_image(Ino ino, const InodeRecord& inode, std::string_view name) const {
  const names::ImageRecord& image = inode.image;
  if (name == "id") return to_uuid_text(image.id);
  if (name == "status") return std::string(rekeyfs::name_of(status_.state_of(ino, inode)));
  if (name == "progress") return progress_of(ino, inode);
  if (name == "source") return image.lineage ? or_absent(to_uuid_text(image.lineage->source)) : or_absent("");
  if (name == "type") return or_absent(names::name_of(image.type));
  if (name == "fast_create") return or_absent(image.disk == names::DiskState::disk ? "1" : "");
  if (name == "format" && image.disk == names::DiskState::disk) return std::string(formats::name_of(formats::Format::raw));
  if (name == "protected") return or_absent(image.is_protected ? "1" : "");
  if (name == "error") return or_absent(filler_.error_of(ino).value_or(image.error));
  if (name == "format" || name == "digest") {
    const auto findings = status_.findings_of(ino, inode);
    if (!findings || (name == "digest" && status_.may_differ(ino))) return or_absent("");
    return name == "format" ? findings->format : to_hex(findings->digest);
  }
  if (name == "stored") {
    RK_TRY_ASSIGN(const auto sizes, store_.layers().sizes_of(image.layer));
    return std::to_string(sizes.stored);
  }
  if (name != "key" && name != "key_id" && name != "encryption" && name != "receipt") return fail(Errc::no_attribute);
  RK_TRY_ASSIGN(const blocks::LayerRecord layer, store_.layers().record_of(image.layer));
  if (name == "encryption") return std::string(layer.key ? "kms" : "none");
  if (name == "receipt" && status_.may_differ(ino)) return or_absent("");
  if (name == "receipt") return receipt_of(inode.image, status_.findings_of(ino, inode), layer.key);
  if (name == "key") return alias_of(layer.key);
  return layer.key ? or_absent(to_hex(*layer.key)) : or_absent("");
}

// A clone has none: it shares its source's blocks, and nothing was transformed.
Result<std::string> OurAttributes::receipt_of(const names::ImageRecord& image, const std::optional<names::Findings>& findings,
                                              const std::optional<kms::KeyId>& key_after) {
  if (!image.lineage || image.lineage->completed == 0 || !findings) return fail(Errc::no_attribute);
  const names::Lineage& lineage = *image.lineage;
  if (lineage.key_before == key_after) return fail(Errc::no_attribute);
  const auto key = [](const std::optional<kms::KeyId>& id) { return id ? Json(to_hex(*id)) : Json(nullptr); };
  const Json receipt{{"source", to_uuid_text(lineage.source)},
                     {"key_before", key(lineage.key_before)},
                     {"key_after", key(key_after)},
                     {"digest", to_hex(findings->digest)},
                     {"replicated", time_text(lineage.replicated)},
                     {"completed", time_text(lineage.completed)}};
  return receipt.dump();
}

Result<std::string> OurAttributes::progress_of(Ino ino, const InodeRecord& inode) const {
  if (inode.image.state == ImageState::normal || inode.image.state == ImageState::normal_uninitialized) return std::string("100.0");
  const auto job = filler_.progress_of(ino);
  char text[16];
  std::snprintf(text, sizeof text, "%.1f", job ? job->percent() : 0);
  return std::string(text);
}

Status OurAttributes::change(Ino ino, const Caller& caller, const std::function<Status(InodeRecord&)>& edit) {
  RK_TRY(store_.health().may_write());
  catalog::WriteTxn txn(store_.catalog());
  RK_TRY_ASSIGN(InodeRecord inode, names::Tree::get(txn, ino));
  if (caller.uid != 0 && caller.uid != inode.uid)
    return fail(Errc::not_permitted, "only its owner or root sets the user.rekeyfs attributes of a file or directory");
  const std::optional<kms::KeyId> key_before = inode.policy.key;
  RK_TRY(edit(inode));
  // Another key chosen by hand is the last word: a rotation under way would change it back.
  if (inode.policy.key != key_before) txn.erase(catalog::make_key(catalog::Table::rotation, ino.value()));
  inode.changed = now();
  names::Tree::put(txn, ino, inode);
  RK_TRY(txn.commit());
  return {};
}

Status OurAttributes::set(Ino ino, std::string_view name, std::string_view value, XattrMode how, const Caller& caller) {
  RK_TRY_ASSIGN(const InodeRecord seen, tree_.get(ino));
  const bool settable = seen.kind == NodeKind::directory ? name == "key" || name == "fast_create" || name == "type"
                        : seen.kind == NodeKind::image && (name == "type" || name == "protected");
  if (!settable) return not_settable(name);
  RK_TRY(check_value(value));
  std::optional<kms::KeyId> key;
  if (name == "key") {
    RK_TRY_ASSIGN(const kms::KeyInfo info, store_.keys().find(value));
    if (info.state != kms::KeyState::enabled)
      return fail(Errc::key_revoked, "the key " + info.alias + " is " + std::string(kms::name_of(info.state)) + ": enable it first");
    key = info.id;
  }
  return change(ino, caller, [&](InodeRecord& inode) -> Status {
    const bool there = is_set(inode, name);
    if (how == XattrMode::create && there) return fail(Errc::exists);
    if (how == XattrMode::replace && !there) return fail(Errc::no_attribute);
    if (key) inode.policy.key = key;
    else if (inode.kind == NodeKind::directory) return set_on_directory(inode, name, value);
    else return set_on_image(inode, name, value);
    return {};
  });
}

Status OurAttributes::set_on_directory(InodeRecord& inode, std::string_view name, std::string_view value) const {
  if (name == "type") {
    RK_TRY_ASSIGN(inode.policy.type, parse_type(value));
  } else {
    RK_TRY_ASSIGN(inode.policy.fast_create, parse_switch(value));
  }
  return {};
}

Status OurAttributes::set_on_image(InodeRecord& inode, std::string_view name, std::string_view value) {
  if (name == "type") {
    RK_TRY_ASSIGN(inode.image.type, parse_type(value));
  } else {
    RK_TRY_ASSIGN(inode.image.is_protected, parse_switch(value));
  }
  return {};
}

Status OurAttributes::remove(Ino ino, std::string_view name, const Caller& caller) {
  RK_TRY(get(ino, name));
  return change(ino, caller, [&](InodeRecord& inode) -> Status {
    if (inode.kind == NodeKind::directory && name == "key") inode.policy.key.reset();
    else if (inode.kind == NodeKind::directory && name == "fast_create") inode.policy.fast_create = false;
    else if (inode.kind == NodeKind::directory && name == "type") inode.policy.type = names::ImageType::none;
    else if (inode.kind == NodeKind::image && name == "type") inode.image.type = names::ImageType::none;
    else if (inode.kind == NodeKind::image && name == "protected") inode.image.is_protected = false;
    else return not_settable(name);
    return {};
  });
}

Result<std::string> OurAttributes::detected_mime_type(Ino ino) const {
  RK_TRY_ASSIGN(const std::string format, get(ino, "format"));
  return std::string(formats::mime_type_of(format));
}

std::vector<std::string> OurAttributes::names_with_values(Ino ino) const {
  std::vector<std::string> names;
  const auto inode = tree_.get(ino);
  if (!inode || inode->kind == NodeKind::symlink) return names;
  auto collect = [&](const auto& all) {
    for (const char* name : all)
      if (get(ino, name)) names.push_back(std::string(kOurPrefix) + name);
  };
  if (inode->kind == NodeKind::directory) collect(kOnDirectory);
  else collect(kOnImage);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace rekeyfs::images
