#include "engine/kms/key_directory.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "engine/base/bytes.h"
#include "engine/base/log.h"

namespace rekeyfs::kms {
namespace {

constexpr std::string_view kDataPurpose = "rekeyfs v1 data key";

KeyId id_from_hex(std::string_view hex) {
  KeyId id;
  for (std::size_t i = 0; i < id.size(); ++i) {
    unsigned value = 0;
    std::from_chars(hex.data() + 2 * i, hex.data() + 2 * i + 2, value, 16);
    id[i] = static_cast<std::byte>(value);
  }
  return id;
}

// The authenticated context of a wrapped data key.
std::string wrap_context(const KeyId& id, KeyVersion version, ByteView context) {
  return Writer().put_string(kDataPurpose).put_raw(id).put(version).put_string(as_text(context)).take();
}

Error no_such_key(std::string_view name) {
  return Error{Errc::no_key, "there is no key \"" + std::string(name) +
                                 "\": `rekeyfs key list` shows all, `rekeyfs key "
                                 "create` makes one"};
}

void add_user(std::vector<uid_t>& users, uid_t user) {
  if (!std::binary_search(users.begin(), users.end(), user)) users.insert(std::upper_bound(users.begin(), users.end(), user), user);
}

}  // namespace

// --- records ---------------------------------------------------------------------------------------------------

Result<std::unique_ptr<KeyDirectory>> KeyDirectory::open(const crypto::Key& root, KeyRecords& records, MasterKeys& masters) {
  RK_TRY_ASSIGN(KeyRecordCodec codec, KeyRecordCodec::create(root));
  std::unique_ptr<KeyDirectory> directory(new KeyDirectory(std::move(codec), records, masters));
  RK_TRY_ASSIGN(const auto all, records.all());
  for (const auto& [id, record] : all) RK_TRY(directory->load(id, record));
  return directory;
}

Status KeyDirectory::load(const KeyId& id, std::string_view record) {
  Entry entry;
  RK_TRY_ASSIGN(entry.record, codec_.decode(id, record));
  RK_TRY(make_ready(entry));
  Lock change(change_);
  if (is_taken(entry.record.info.alias)) return fail(damaged_record(id, "has the alias of another key"));
  publish(prepare(std::move(entry)));
  return {};
}

Status KeyDirectory::make_ready(Entry& entry) const {
  const KeyRecord& record = entry.record;
  if (record.info.state != KeyState::enabled) entry.masters.clear();
  if (record.info.state != KeyState::enabled) return {};
  std::erase_if(entry.masters, [&](const auto& master) { return !record.handles.contains(master.first); });
  for (const auto& [version, handle] : record.handles) {
    if (entry.masters.contains(version)) continue;
    auto master = masters_.open(record.info.id, version, handle);
    if (!master && master.error().code == Errc::corrupt)
      return fail(damaged_record(record.info.id, "holds a master key that does not open"));
    if (!master) return fail(master.error());
    entry.masters.emplace(version, std::move(*master));
  }
  return {};
}

KeyDirectory::Prepared KeyDirectory::prepare(Entry entry) {
  KeyInfo& info = entry.record.info;
  info.oldest = entry.record.handles.begin()->first;
  Prepared prepared;
  prepared.alias.emplace(info.alias, info.id);
  const KeyId id = info.id;
  prepared.entry.emplace(id, std::move(entry));
  return prepared;
}

void KeyDirectory::publish(Prepared prepared) noexcept {
  auto fresh = prepared.entry.extract(prepared.entry.begin());
  fresh.mapped().gate->set_enabled(fresh.mapped().record.info.state == KeyState::enabled);
  UniqueLock lock(mutex_);
  ids_.merge(prepared.alias);
  const auto there = entries_.find(fresh.key());
  if (there == entries_.end()) entries_.insert(std::move(fresh));
  else there->second = std::move(fresh.mapped());
}

Result<KeyDirectory::Entry> KeyDirectory::copy_of(const KeyId& id) const {
  SharedLock lock(mutex_);
  const auto at = entries_.find(id);
  if (at == entries_.end()) return fail(no_such_key(to_hex(id)));
  return at->second;
}

KeyInfo KeyDirectory::info_of(const Entry& entry) {
  KeyInfo info = entry.record.info;
  if (info.state == KeyState::enabled && !entry.gate->is_open()) info.state = KeyState::disabled;
  return info;
}

Result<KeyInfo> KeyDirectory::change(const KeyId& id, const Edit& edit) {
  Lock change(change_);
  RK_TRY_ASSIGN(Entry entry, copy_of(id));
  if (entry.is_going) return fail(Errc::invalid, "key \"" + entry.record.info.alias + "\" is being deleted");
  RK_TRY(edit(entry.record));
  RK_TRY(make_ready(entry));
  const std::string record = codec_.encode(entry.record);
  Prepared prepared = prepare(std::move(entry));
  RK_TRY(records_.put(id, record));
  publish(std::move(prepared));
  return find(id);
}

void KeyDirectory::shut(const KeyId& id) {
  SharedLock lock(mutex_);
  if (const auto at = entries_.find(id); at != entries_.end()) at->second.gate->shut();
}

Result<KeyInfo> KeyDirectory::shut_and_change(const KeyId& id, const Edit& edit) {
  shut(id);
  auto changed = change(id, edit);
  if (!changed) shut(id);  // again, because another caller may have enabled the key meanwhile
  return changed;
}

Result<KeyInfo> KeyDirectory::open_again(const KeyId& id, const Edit& edit) {
  RK_TRY(change(id, edit));
  RK_TRY_ASSIGN(const Entry entry, copy_of(id));
  entry.gate->reopen();
  return info_of(entry);
}

Result<KeyInfo> KeyDirectory::add(Entry entry, std::size_t most) {
  const KeyInfo info = entry.record.info;
  RK_TRY(make_ready(entry));
  Lock change(change_);
  RK_TRY(may_add(info.alias, info.owner, most));
  const std::string record = codec_.encode(entry.record);
  Prepared prepared = prepare(std::move(entry));
  RK_TRY(records_.put(info.id, record));
  publish(std::move(prepared));
  return info;
}

Status KeyDirectory::may_add(std::string_view alias, uid_t owner, std::size_t most) const {
  if (is_taken(alias)) return fail(Errc::exists, "the key alias \"" + std::string(alias) + "\" is taken: choose another one");
  SharedLock lock(mutex_);
  const auto owned = std::count_if(entries_.begin(), entries_.end(), [owner](const auto& one) { return one.second.record.info.owner == owner; });
  if (static_cast<std::size_t>(owned) < most) return {};
  if (most == 0)
    return fail(Errc::not_permitted, "keys of this store are made by its operators: ask one for a key, or to mount the store with -o user_keys=N");
  return fail(Errc::not_permitted, "user " + std::to_string(owner) + " has " + std::to_string(owned) + " of " + std::to_string(most) +
                                       " keys: delete one, or ask an operator of the store, who can make one");
}

bool KeyDirectory::is_taken(std::string_view alias) const {
  SharedLock lock(mutex_);
  return ids_.find(alias) != ids_.end();
}

// --- looking up ------------------------------------------------------------------------------------------------

Result<KeyInfo> KeyDirectory::find(std::string_view alias_or_id) const {
  SharedLock lock(mutex_);
  const Entry* entry = entry_of(alias_or_id);
  if (entry == nullptr) return fail(no_such_key(alias_or_id));
  return info_of(*entry);
}

Result<KeyInfo> KeyDirectory::find(const KeyId& id) const {
  SharedLock lock(mutex_);
  const auto at = entries_.find(id);
  if (at == entries_.end()) return fail(no_such_key(to_hex(id)));
  return info_of(at->second);
}

Result<std::vector<KeyInfo>> KeyDirectory::list() const {
  SharedLock lock(mutex_);
  std::vector<KeyInfo> all;
  for (const auto& [alias, id] : ids_) all.push_back(info_of(entries_.at(id)));
  return all;
}

std::vector<KeyInfo> KeyDirectory::pending() const {
  SharedLock lock(mutex_);
  std::vector<KeyInfo> keys;
  for (const auto& [id, entry] : entries_)
    if (entry.record.info.state == KeyState::pending_deletion) keys.push_back(entry.record.info);
  return keys;
}

const KeyDirectory::Entry* KeyDirectory::entry_of(std::string_view alias_or_id) const {
  if (const auto alias = ids_.find(alias_or_id); alias != ids_.end()) return &entries_.at(alias->second);
  if (!is_hex_id(alias_or_id)) return nullptr;
  const auto at = entries_.find(id_from_hex(alias_or_id));
  return at == entries_.end() ? nullptr : &at->second;
}

std::shared_ptr<const KeyGate> KeyDirectory::gate_of(const KeyId& id) const {
  SharedLock lock(mutex_);
  const auto at = entries_.find(id);
  return at == entries_.end() ? std::make_shared<const KeyGate>() : at->second.gate;
}

// --- using a key -----------------------------------------------------------------------------------------------

Result<KeyDirectory::Usable> KeyDirectory::usable(const KeyId& id, std::optional<KeyVersion> version) const {
  SharedLock lock(mutex_);
  const auto at = entries_.find(id);
  if (at == entries_.end()) return fail(no_such_key(to_hex(id)));
  const KeyInfo& info = at->second.record.info;
  if (info.state != KeyState::enabled || !at->second.gate->is_open()) RK_TRY(check_enabled(info_of(at->second)));
  Usable usable{info.alias, version.value_or(info.version), nullptr};
  const auto master = at->second.masters.find(usable.version);
  if (master != at->second.masters.end()) usable.master = master->second;
  return usable;
}

Result<WrappedKey> KeyDirectory::wrap(const KeyId& id, const crypto::Key& data_key, ByteView context) const {
  RK_TRY_ASSIGN(const Usable key, usable(id, std::nullopt));
  RK_TRY_ASSIGN(std::string bytes, key.master->wrap(data_key, as_bytes(wrap_context(id, key.version, context))));
  return WrappedKey{key.version, std::move(bytes)};
}

Result<crypto::Key> KeyDirectory::unwrap(const KeyId& id, const WrappedKey& wrapped, ByteView context) const {
  RK_TRY_ASSIGN(const Usable key, usable(id, wrapped.version));
  if (key.master) {
    auto opened = key.master->unwrap(wrapped.bytes, as_bytes(wrap_context(id, wrapped.version, context)));
    if (opened || opened.error().code != Errc::corrupt) return opened;
  }
  return fail(Errc::corrupt, "cannot unwrap a data key with version " + std::to_string(wrapped.version) + " of key \"" + key.alias +
                                 "\": it is damaged or belongs to another layer; run `rekeyfs check`");
}

// --- the life of a key -----------------------------------------------------------------------------------------

Result<KeyInfo> KeyDirectory::create(std::string_view alias, uid_t owner, std::size_t most) {
  if (!is_alias(alias))
    return fail(Errc::invalid,
                "\"" + std::string(alias) +
                    "\" is not a valid key alias: use 1 to 128 letters, digits, '.', '_' and '-', not starting "
                    "with '.' or '-', and not 32 hex digits (that is an id)");
  RK_TRY(may_add(alias, owner, most));  // before a key is made; repeated when the entry is added
  Entry entry;
  KeyInfo& info = entry.record.info;
  RK_TRY_ASSIGN(info.id, crypto::random_uuid());
  info.alias = alias;
  info.owner = owner;
  info.created = now();
  RK_TRY_ASSIGN(std::string handle, masters_.make(info.id, info.version));
  entry.record.handles.emplace(info.version, std::move(handle));
  const KeyRecord record = entry.record;
  auto added = add(std::move(entry), most);
  if (!added) static_cast<void>(destroy(record, info.version + 1));
  return added;
}

Result<KeyInfo> KeyDirectory::disable(const KeyId& id) {
  return shut_and_change(id, [](KeyRecord& record) -> Status {
    if (record.info.state == KeyState::pending_deletion)
      return fail(Errc::invalid, "key \"" + record.info.alias + "\" is pending deletion: cancel the deletion first");
    record.info.state = KeyState::disabled;
    return {};
  });
}

Result<KeyInfo> KeyDirectory::enable(const KeyId& id) {
  return open_again(id, [](KeyRecord& record) -> Status {
    if (record.info.state == KeyState::pending_deletion)
      return fail(Errc::invalid, "key \"" + record.info.alias + "\" is pending deletion: `rekeyfs key cancel-deletion` keeps and enables it");
    record.info.state = KeyState::enabled;
    return {};
  });
}

Result<KeyInfo> KeyDirectory::schedule_deletion(const KeyId& id, Timestamp when) {
  return shut_and_change(id, [when](KeyRecord& record) -> Status {
    record.info.state = KeyState::pending_deletion;
    record.info.deletion = when;
    return {};
  });
}

Result<KeyInfo> KeyDirectory::move_deletion(const KeyId& id, Timestamp when) {
  return change(id, [when](KeyRecord& record) -> Status {
    if (record.info.state != KeyState::pending_deletion)
      return fail(Errc::invalid, "key \"" + record.info.alias + "\" is not pending deletion");
    record.info.deletion = when;
    return {};
  });
}

Result<KeyInfo> KeyDirectory::cancel_deletion(const KeyId& id) {
  return open_again(id, [](KeyRecord& record) -> Status {
    if (record.info.state != KeyState::pending_deletion)
      return fail(Errc::invalid, "key \"" + record.info.alias + "\" is not pending deletion");
    record.info.state = KeyState::enabled;
    record.info.deletion = 0;
    return {};
  });
}

Result<KeyDirectory::Entry> KeyDirectory::begin_removal(const KeyId& id, Timestamp now) {
  Lock change(change_);
  UniqueLock lock(mutex_);
  const auto at = entries_.find(id);
  if (at == entries_.end()) return fail(no_such_key(to_hex(id)));
  const KeyInfo& info = at->second.record.info;
  if (info.state != KeyState::pending_deletion || info.deletion > now)
    return fail(Errc::invalid, "the deletion of key \"" + info.alias + "\" is not due");
  at->second.is_going = true;
  return at->second;
}

// The record is removed last: without its handle the service's key could not be destroyed any more.
Status KeyDirectory::remove(const KeyId& id, Timestamp now) {
  RK_TRY_ASSIGN(const Entry entry, begin_removal(id, now));
  const KeyInfo& info = entry.record.info;
  RK_TRY(destroy(entry.record, std::numeric_limits<KeyVersion>::max()));
  Lock change(change_);
  RK_TRY(records_.remove(id));
  UniqueLock lock(mutex_);
  ids_.erase(info.alias);
  entries_.erase(id);
  return {};
}

// Destroys all versions older than `before`.
Status KeyDirectory::destroy(const KeyRecord& record, KeyVersion before) {
  for (const auto& [version, handle] : record.handles)
    if (version < before) RK_TRY(masters_.destroy(record.info.id, version, handle));
  return {};
}

Result<KeyInfo> KeyDirectory::rotate(const KeyId& id) {
  RK_TRY_ASSIGN(const KeyInfo before, find(id));
  RK_TRY(check_enabled(before));
  const KeyVersion next = before.version + 1;
  RK_TRY_ASSIGN(const std::string handle, masters_.make(id, next));
  auto rotated = change(id, [&](KeyRecord& record) -> Status {
    RK_TRY(check_enabled(record.info));
    if (!record.handles.emplace(next, handle).second)
      return fail(Errc::busy, "key \"" + record.info.alias + "\" is being rotated by somebody else: try again");
    record.info.version = next;
    return {};
  });
  if (rotated) return rotated;
  if (const Status destroyed = masters_.destroy(id, next, handle); !destroyed)
    log::warn("version {} of key \"{}\" was made in vain and stays with the key service: {}", next, before.alias, describe(destroyed.error()));
  return rotated;
}

Status KeyDirectory::forget_versions(const KeyId& id, KeyVersion oldest) {
  RK_TRY_ASSIGN(const Entry entry, copy_of(id));
  const KeyVersion first_kept = std::min(oldest, entry.record.info.version);
  RK_TRY(destroy(entry.record, first_kept));
  RK_TRY(change(id, [first_kept](KeyRecord& record) -> Status {
    record.handles.erase(record.handles.begin(), record.handles.lower_bound(first_kept));
    return {};
  }));
  return {};
}

Result<KeyInfo> KeyDirectory::grant(const KeyId& id, uid_t user) {
  return change(id, [user](KeyRecord& record) -> Status {
    add_user(record.info.grantees, user);
    return {};
  });
}

Result<KeyInfo> KeyDirectory::revoke(const KeyId& id, uid_t user) {
  return change(id, [user](KeyRecord& record) -> Status {
    if (std::erase(record.info.grantees, user) + std::erase(record.info.declassifiers, user) == 0)
      return fail(Errc::invalid, "user " + std::to_string(user) + " has no grant for key \"" + record.info.alias + "\"");
    return {};
  });
}

Result<KeyInfo> KeyDirectory::grant_declassification(const KeyId& id, uid_t user) {
  return change(id, [user](KeyRecord& record) -> Status {
    add_user(record.info.declassifiers, user);
    return {};
  });
}

Result<KeyInfo> KeyDirectory::revoke_declassification(const KeyId& id, uid_t user) {
  return change(id, [user](KeyRecord& record) -> Status {
    if (std::erase(record.info.declassifiers, user) == 0)
      return fail(Errc::invalid, "user " + std::to_string(user) + " has no right to declassify content of key \"" + record.info.alias + "\"");
    return {};
  });
}

}  // namespace rekeyfs::kms
