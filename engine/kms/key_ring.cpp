#include "engine/kms/key_ring.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include "engine/base/bytes.h"

namespace rekeyfs::kms {
namespace {

constexpr std::uint8_t kRecordVersion = 1;
constexpr std::size_t kMostAliasBytes = 128;
constexpr std::size_t kMacSize = sizeof(crypto::Digest);

constexpr std::string_view kMasterPurpose = "rekeyfs v1 master key";
constexpr std::string_view kDataPurpose = "rekeyfs v1 data key";
constexpr std::string_view kRecordPurpose = "rekeyfs v1 key ring record";

bool is_hex_id(std::string_view text) {
  return text.size() == 32 &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isxdigit(c) != 0; });
}

bool is_alias(std::string_view text) {
  constexpr std::string_view kAllowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
  return !text.empty() && text.size() <= kMostAliasBytes && text[0] != '-' && text[0] != '.' &&
         text.find_first_not_of(kAllowed) == std::string_view::npos && !is_hex_id(text);
}

KeyId id_from_hex(std::string_view hex) {
  KeyId id;
  for (std::size_t i = 0; i < id.size(); ++i) {
    unsigned value = 0;
    std::from_chars(hex.data() + 2 * i, hex.data() + 2 * i + 2, value, 16);
    id[i] = static_cast<std::byte>(value);
  }
  return id;
}

// A random version 4 identifier, so that it can also be written as an RFC 4122 UUID.
Result<KeyId> random_id() {
  KeyId id;
  RK_TRY(crypto::fill_random(id));
  id[6] = (id[6] & std::byte{0x0f}) | std::byte{0x40};
  id[8] = (id[8] & std::byte{0x3f}) | std::byte{0x80};
  return id;
}

// What the wrapping of a key of the ring authenticates beside the key.
std::string wrap_context(std::string_view domain, const KeyId& id, KeyVersion version, ByteView context) {
  return Writer().put_string(domain).put_raw(id).put(version).put_string(as_text(context)).take();
}

Error damaged(const KeyId& id, std::string_view what) {
  return Error{Errc::corrupt, "the record of key " + to_hex(id) + " " + std::string(what) +
                                  ": run `rekeyfs check`, or restore the store from a backup"};
}

Error no_such_key(std::string_view name) {
  return Error{Errc::no_key, "there is no key \"" + std::string(name) +
                                 "\": `rekeyfs key list` shows all, `rekeyfs key "
                                 "create` makes one"};
}

void put_info(Writer& out, const KeyInfo& info) {
  out.put_raw(info.id).put(static_cast<std::uint8_t>(info.state)).put_string(info.alias).put(info.version);
  out.put(static_cast<std::uint32_t>(info.owner)).put_time(info.created).put_time(info.deletion);
  out.put(static_cast<std::uint32_t>(info.grantees.size()));
  for (uid_t grantee : info.grantees) out.put(static_cast<std::uint32_t>(grantee));
}

KeyInfo get_info(Reader& in) {
  KeyInfo info;
  in.get_into(info.id);
  info.state = static_cast<KeyState>(in.get<std::uint8_t>());
  info.alias = in.get_string();
  info.version = in.get<std::uint32_t>();
  info.owner = in.get<std::uint32_t>();
  info.created = in.get_time();
  info.deletion = in.get_time();
  const auto grantees = in.get<std::uint32_t>();
  for (std::uint32_t i = 0; i < grantees && in.ok(); ++i) info.grantees.push_back(in.get<std::uint32_t>());
  return info;
}

bool is_sound(const KeyInfo& info, const KeyId& id) {
  const bool pending = info.state == KeyState::pending_deletion;
  const bool known = pending || info.state == KeyState::enabled || info.state == KeyState::disabled;
  return info.id == id && known && is_alias(info.alias) && (info.deletion != 0) == pending &&
         std::is_sorted(info.grantees.begin(), info.grantees.end());
}

}  // namespace

KeyRing::KeyRing(crypto::KeyWrap master_wrap, crypto::Mac record_mac, KeyRecords& records)
    : master_wrap_(std::move(master_wrap)), record_mac_(std::move(record_mac)), records_(records) {}

Result<std::unique_ptr<KeyRing>> KeyRing::open(const crypto::Key& root, KeyRecords& records) {
  RK_TRY_ASSIGN(crypto::KeyWrap master_wrap, crypto::KeyWrap::create(root, kMasterPurpose));
  RK_TRY_ASSIGN(crypto::Key mac_key, crypto::derive_key(root, {}, kRecordPurpose));
  RK_TRY_ASSIGN(crypto::Mac record_mac, crypto::Mac::create(mac_key));
  std::unique_ptr<KeyRing> ring(new KeyRing(std::move(master_wrap), std::move(record_mac), records));
  RK_TRY_ASSIGN(auto all, records.all());
  for (const auto& [id, record] : all) RK_TRY(ring->load(id, record));
  return ring;
}

Status KeyRing::load(const KeyId& id, std::string_view record) {
  RK_TRY_ASSIGN(Entry entry, decode(id, record));
  RK_TRY(make_ready(entry));
  Lock change(change_);
  if (is_taken(entry.info.alias)) return fail(damaged(id, "has the alias of another key"));
  publish(prepare(std::move(entry)));
  return {};
}

KeyRing::Prepared KeyRing::prepare(Entry entry) {
  entry.info.oldest = entry.masters.begin()->first;
  Prepared prepared;
  prepared.alias.emplace(entry.info.alias, entry.info.id);
  const KeyId id = entry.info.id;
  prepared.entry.emplace(id, std::move(entry));
  return prepared;
}

void KeyRing::publish(Prepared prepared) noexcept {
  auto fresh = prepared.entry.extract(prepared.entry.begin());
  fresh.mapped().gate->set_open(fresh.mapped().info.state == KeyState::enabled);
  UniqueLock lock(mutex_);
  ids_.merge(prepared.alias);
  const auto there = entries_.find(fresh.key());
  if (there == entries_.end()) entries_.insert(std::move(fresh));
  else there->second = std::move(fresh.mapped());
}

Result<KeyRing::Entry> KeyRing::copy_of(const KeyId& id) const {
  SharedLock lock(mutex_);
  const auto at = entries_.find(id);
  if (at == entries_.end()) return fail(no_such_key(to_hex(id)));
  return at->second;
}

Result<KeyInfo> KeyRing::change(const KeyId& id, const Edit& edit) {
  Lock change(change_);
  RK_TRY_ASSIGN(Entry entry, copy_of(id));
  RK_TRY(edit(entry));
  RK_TRY(make_ready(entry));
  const std::string record = encode(entry);
  Prepared prepared = prepare(std::move(entry));
  RK_TRY(records_.put(id, record));
  publish(std::move(prepared));
  return find(id);
}

Result<KeyInfo> KeyRing::create(std::string_view alias, uid_t owner) {
  if (!is_alias(alias))
    return fail(Errc::invalid,
                "\"" + std::string(alias) +
                    "\" is no name for a key: use 1 to 128 letters, digits, '.', '_' and '-', not starting "
                    "with '.' or '-', and not 32 hex digits (that is an id)");
  RK_TRY_ASSIGN(const KeyId id, random_id());
  RK_TRY_ASSIGN(auto master, make_master(id, 1));
  Entry entry;
  entry.info = KeyInfo{.id = id, .alias = std::string(alias), .owner = owner, .created = now(), .grantees = {}};
  entry.masters.emplace(entry.info.version, std::move(master));

  Lock change(change_);
  if (is_taken(alias))
    return fail(Errc::exists, "there is a key \"" + std::string(alias) + "\" already: choose another name");
  const std::string record = encode(entry);
  Prepared prepared = prepare(std::move(entry));
  RK_TRY(records_.put(id, record));
  publish(std::move(prepared));
  return find(id);
}

bool KeyRing::is_taken(std::string_view alias) const {
  SharedLock lock(mutex_);
  return ids_.find(alias) != ids_.end();
}

Result<KeyInfo> KeyRing::find(std::string_view alias_or_id) {
  SharedLock lock(mutex_);
  const Entry* entry = entry_of(alias_or_id);
  if (entry == nullptr) return fail(no_such_key(alias_or_id));
  return entry->info;
}

Result<KeyInfo> KeyRing::find(const KeyId& id) {
  SharedLock lock(mutex_);
  auto at = entries_.find(id);
  if (at == entries_.end()) return fail(no_such_key(to_hex(id)));
  return at->second.info;
}

Result<std::vector<KeyInfo>> KeyRing::list() {
  SharedLock lock(mutex_);
  std::vector<KeyInfo> all;
  for (const auto& [alias, id] : ids_) all.push_back(entries_.at(id).info);
  return all;
}

Result<WrappedKey> KeyRing::wrap(const KeyId& id, const crypto::Key& data_key, ByteView context) {
  SharedLock lock(mutex_);
  RK_TRY_ASSIGN(const Entry* entry, usable_entry(id));
  const KeyVersion version = entry->info.version;
  RK_TRY_ASSIGN(std::string bytes, entry->masters.at(version)->wrap->wrap(
                                       as_bytes(wrap_context(kDataPurpose, id, version, context)), data_key));
  return WrappedKey{version, std::move(bytes)};
}

Result<crypto::Key> KeyRing::unwrap(const KeyId& id, const WrappedKey& wrapped, ByteView context) {
  SharedLock lock(mutex_);
  RK_TRY_ASSIGN(const Entry* entry, usable_entry(id));
  auto master = entry->masters.find(wrapped.version);
  if (master != entry->masters.end()) {
    auto key = master->second->wrap->unwrap(as_bytes(wrap_context(kDataPurpose, id, wrapped.version, context)),
                                          as_bytes(wrapped.bytes));
    const bool forged = !key && (key.error().code == Errc::wrong_secret || key.error().code == Errc::corrupt);
    if (!forged) return key;
  }
  return fail(Errc::corrupt, "a data key does not open with version " + std::to_string(wrapped.version) + " of key \"" +
                                 entry->info.alias + "\": it is damaged or belongs elsewhere; run `rekeyfs check`");
}

Result<std::shared_ptr<const KeyRing::MasterKey>> KeyRing::make_master(const KeyId& id, KeyVersion version) const {
  RK_TRY_ASSIGN(crypto::Key key, crypto::Key::random());
  RK_TRY_ASSIGN(std::string wrapped, master_wrap_.wrap(as_bytes(wrap_context(kMasterPurpose, id, version, {})), key));
  RK_TRY_ASSIGN(crypto::KeyWrap wrap, crypto::KeyWrap::create(key, kDataPurpose));
  return std::make_shared<const MasterKey>(MasterKey{std::move(wrapped), std::move(wrap)});
}

Result<std::shared_ptr<const KeyRing::MasterKey>> KeyRing::open_master(const KeyId& id, KeyVersion version, std::string wrapped) const {
  auto key = master_wrap_.unwrap(as_bytes(wrap_context(kMasterPurpose, id, version, {})), as_bytes(wrapped));
  if (!key) {
    const bool forged = key.error().code == Errc::wrong_secret || key.error().code == Errc::corrupt;
    return fail(forged ? damaged(id, "holds a master key that does not open") : key.error());
  }
  RK_TRY_ASSIGN(crypto::KeyWrap wrap, crypto::KeyWrap::create(*key, kDataPurpose));
  return std::make_shared<const MasterKey>(MasterKey{std::move(wrapped), std::move(wrap)});
}

Status KeyRing::make_ready(Entry& entry) const {
  const bool ready = entry.info.state == KeyState::enabled;
  for (auto& [version, master] : entry.masters) {
    if (master->wrap.has_value() == ready) continue;
    if (!ready) {
      master = std::make_shared<const MasterKey>(MasterKey{master->wrapped, std::nullopt});
    } else {
      RK_TRY_ASSIGN(master, open_master(entry.info.id, version, master->wrapped));
    }
  }
  return {};
}

std::string KeyRing::encode(const Entry& entry) const {
  Writer out;
  out.put(kRecordVersion);
  put_info(out, entry.info);
  out.put(static_cast<std::uint32_t>(entry.masters.size()));
  for (const auto& [version, master] : entry.masters) out.put(version).put_string(master->wrapped);
  out.put_raw(record_mac_.digest(as_bytes(out.text())));
  return out.take();
}

// The MAC is checked before anything is believed; what it covers is still parsed with suspicion, since a record of
// a later rekeyfs verifies too.
Result<KeyRing::Entry> KeyRing::decode(const KeyId& id, std::string_view record) const {
  if (record.size() < kMacSize) return fail(damaged(id, "is too short"));
  const std::string_view body = record.substr(0, record.size() - kMacSize);
  if (!crypto::equal_constant_time(record_mac_.digest(as_bytes(body)), as_bytes(record.substr(body.size()))))
    return fail(damaged(id, "does not verify"));
  Reader in(body);
  if (in.get<std::uint8_t>() != kRecordVersion)
    return fail(Errc::wrong_version, "key " + to_hex(id) + " was written by a newer rekeyfs: use that one");
  Entry entry;
  entry.info = get_info(in);
  const auto masters = in.get<std::uint32_t>();
  for (std::uint32_t i = 0; i < masters && in.ok(); ++i) {
    const auto version = in.get<std::uint32_t>();
    RK_TRY_ASSIGN(auto master, open_master(id, version, in.get_string()));
    entry.masters.emplace_hint(entry.masters.end(), version, std::move(master));
  }
  if (!in.finished() || entry.masters.size() != masters || !is_sound(entry.info, id) ||
      !entry.masters.contains(entry.info.version))
    return fail(damaged(id, "contradicts itself"));
  return entry;
}

// --- the life of a key -----------------------------------------------------------------------------------------

std::shared_ptr<const KeyGate> KeyRing::gate_of(const KeyId& id) {
  SharedLock lock(mutex_);
  const auto at = entries_.find(id);
  return at == entries_.end() ? std::make_shared<const KeyGate>() : at->second.gate;
}

Result<KeyInfo> KeyRing::disable(const KeyId& id) {
  return change(id, [](Entry& entry) -> Status {
    if (entry.info.state == KeyState::pending_deletion)
      return fail(Errc::invalid, "key \"" + entry.info.alias + "\" is to be deleted and cannot be used as it is: cancel its deletion first");
    entry.info.state = KeyState::disabled;
    return {};
  });
}

Result<KeyInfo> KeyRing::enable(const KeyId& id) {
  return change(id, [](Entry& entry) -> Status {
    if (entry.info.state == KeyState::pending_deletion)
      return fail(Errc::invalid, "key \"" + entry.info.alias + "\" is to be deleted: `rekeyfs key cancel-deletion` keeps and enables it");
    entry.info.state = KeyState::enabled;
    return {};
  });
}

Result<KeyInfo> KeyRing::schedule_deletion(const KeyId& id, Timestamp when) {
  return change(id, [when](Entry& entry) -> Status {
    entry.info.state = KeyState::pending_deletion;
    entry.info.deletion = when;
    return {};
  });
}

Result<KeyInfo> KeyRing::cancel_deletion(const KeyId& id) {
  return change(id, [](Entry& entry) -> Status {
    if (entry.info.state != KeyState::pending_deletion)
      return fail(Errc::invalid, "key \"" + entry.info.alias + "\" is not to be deleted");
    entry.info.state = KeyState::enabled;
    entry.info.deletion = 0;
    return {};
  });
}

Status KeyRing::remove(const KeyId& id) {
  Lock change(change_);
  RK_TRY_ASSIGN(const Entry entry, copy_of(id));
  if (entry.info.state != KeyState::pending_deletion || entry.info.deletion > now())
    return fail(Errc::invalid, "the deletion of key \"" + entry.info.alias + "\" is not due");
  RK_TRY(records_.remove(id));
  UniqueLock lock(mutex_);
  ids_.erase(entry.info.alias);
  entries_.erase(id);
  return {};
}

Result<KeyInfo> KeyRing::rotate(const KeyId& id) {
  {
    SharedLock lock(mutex_);
    RK_TRY(usable_entry(id));
  }
  return change(id, [&](Entry& entry) -> Status {
    const KeyVersion next = entry.info.version + 1;
    RK_TRY_ASSIGN(auto master, make_master(id, next));
    entry.masters.emplace(next, std::move(master));
    entry.info.version = next;
    return {};
  });
}

Status KeyRing::forget_versions(const KeyId& id, KeyVersion oldest) {
  RK_TRY(change(id, [oldest](Entry& entry) -> Status {
    entry.masters.erase(entry.masters.begin(), entry.masters.lower_bound(std::min(oldest, entry.info.version)));
    return {};
  }));
  return {};
}

Result<KeyInfo> KeyRing::grant(const KeyId& id, uid_t user) {
  return change(id, [user](Entry& entry) -> Status {
    std::vector<uid_t>& users = entry.info.grantees;
    if (!std::binary_search(users.begin(), users.end(), user)) users.insert(std::upper_bound(users.begin(), users.end(), user), user);
    return {};
  });
}

Result<KeyInfo> KeyRing::revoke(const KeyId& id, uid_t user) {
  return change(id, [user](Entry& entry) -> Status {
    if (std::erase(entry.info.grantees, user) == 0)
      return fail(Errc::invalid, "user " + std::to_string(user) + " has no grant for key \"" + entry.info.alias + "\"");
    return {};
  });
}

// --- looking up ------------------------------------------------------------------------------------------------

const KeyRing::Entry* KeyRing::entry_of(std::string_view alias_or_id) const {
  if (auto alias = ids_.find(alias_or_id); alias != ids_.end()) return &entries_.at(alias->second);
  if (!is_hex_id(alias_or_id)) return nullptr;
  auto at = entries_.find(id_from_hex(alias_or_id));
  return at == entries_.end() ? nullptr : &at->second;
}

Result<const KeyRing::Entry*> KeyRing::usable_entry(const KeyId& id) const {
  auto at = entries_.find(id);
  if (at == entries_.end()) return fail(no_such_key(to_hex(id)));
  RK_TRY(check_enabled(at->second.info));
  return &at->second;
}

}  // namespace rekeyfs::kms
