#include "engine/kms/key_record.h"

#include <algorithm>

#include "engine/base/bytes.h"

namespace rekeyfs::kms {
namespace {

constexpr std::uint8_t kRecordVersion = 1;
constexpr std::uint8_t kRightsVersion = 2;  // of a key with declassifiers
constexpr std::size_t kMacSize = sizeof(crypto::Digest);
constexpr std::string_view kRecordPurpose = "rekeyfs v1 key ring record";

void put_users(Writer& out, const std::vector<uid_t>& users) {
  out.put(static_cast<std::uint32_t>(users.size()));
  for (uid_t user : users) out.put(static_cast<std::uint32_t>(user));
}

std::vector<uid_t> get_users(Reader& in) {
  std::vector<uid_t> users;
  const auto size = in.get<std::uint32_t>();
  for (std::uint32_t i = 0; i < size && in.ok(); ++i) users.push_back(in.get<std::uint32_t>());
  return users;
}

void put_info(Writer& out, const KeyInfo& info) {
  out.put_raw(info.id).put(static_cast<std::uint8_t>(info.state)).put_string(info.alias).put(info.version);
  out.put(static_cast<std::uint32_t>(info.owner)).put_time(info.created).put_time(info.deletion);
  put_users(out, info.grantees);
  if (!info.declassifiers.empty()) put_users(out, info.declassifiers);
}

KeyInfo get_info(Reader& in, std::uint8_t version) {
  KeyInfo info;
  in.get_into(info.id);
  info.state = static_cast<KeyState>(in.get<std::uint8_t>());
  info.alias = in.get_string();
  info.version = in.get<std::uint32_t>();
  info.owner = in.get<std::uint32_t>();
  info.created = in.get_time();
  info.deletion = in.get_time();
  info.grantees = get_users(in);
  if (version == kRightsVersion) info.declassifiers = get_users(in);
  return info;
}

bool is_sound(const KeyInfo& info, const KeyId& id) {
  const bool pending = info.state == KeyState::pending_deletion;
  const bool known = pending || info.state == KeyState::enabled || info.state == KeyState::disabled;
  return info.id == id && known && is_alias(info.alias) && (info.deletion != 0) == pending &&
         std::is_sorted(info.grantees.begin(), info.grantees.end()) &&
         std::is_sorted(info.declassifiers.begin(), info.declassifiers.end());
}

}  // namespace

Error damaged_record(const KeyId& id, std::string_view what) {
  return Error{Errc::corrupt, "the record of key " + to_hex(id) + " " + std::string(what) +
                                  ": run `rekeyfs check`, or restore the store from a backup"};
}

Result<KeyRecordCodec> KeyRecordCodec::create(const crypto::Key& root) {
  RK_TRY_ASSIGN(const crypto::Key mac_key, crypto::derive_key(root, {}, kRecordPurpose));
  RK_TRY_ASSIGN(crypto::Mac mac, crypto::Mac::create(mac_key));
  return KeyRecordCodec(std::move(mac));
}

std::string KeyRecordCodec::encode(const KeyRecord& record) const {
  Writer out;
  out.put(record.info.declassifiers.empty() ? kRecordVersion : kRightsVersion);
  put_info(out, record.info);
  out.put(static_cast<std::uint32_t>(record.handles.size()));
  for (const auto& [version, handle] : record.handles) out.put(version).put_string(handle);
  out.put_raw(mac_.digest(as_bytes(out.text())));
  return out.take();
}

// The MAC is verified before anything is used. The content is still validated, because the record of a later version
// verifies, too.
Result<KeyRecord> KeyRecordCodec::decode(const KeyId& id, std::string_view bytes) const {
  if (bytes.size() < kMacSize) return fail(damaged_record(id, "is too short"));
  const std::string_view body = bytes.substr(0, bytes.size() - kMacSize);
  if (!crypto::equal_constant_time(mac_.digest(as_bytes(body)), as_bytes(bytes.substr(body.size()))))
    return fail(damaged_record(id, "does not verify"));
  Reader in(body);
  const auto version_of_record = in.get<std::uint8_t>();
  if (version_of_record != kRecordVersion && version_of_record != kRightsVersion)
    return fail(Errc::wrong_version, "key " + to_hex(id) + " was written by a newer version of rekeyfs: use that version");
  KeyRecord record;
  record.info = get_info(in, version_of_record);
  const auto versions = in.get<std::uint32_t>();
  for (std::uint32_t i = 0; i < versions && in.ok(); ++i) {
    const auto version = in.get<std::uint32_t>();
    record.handles.emplace(version, in.get_string());
  }
  const bool has_rights = !record.info.declassifiers.empty();
  if (!in.finished() || has_rights != (version_of_record == kRightsVersion) || record.handles.size() != versions || !is_sound(record.info, id) || !record.handles.contains(record.info.version))
    return fail(damaged_record(id, "contradicts itself"));
  return record;
}

}  // namespace rekeyfs::kms
