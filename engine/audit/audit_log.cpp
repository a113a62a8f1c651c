#include "engine/audit/audit_log.h"

#include <algorithm>

#include "engine/audit/event_record.h"
#include "engine/base/log.h"

namespace rekeyfs::audit {

using catalog::Table;
using catalog::WriteTxn;
using catalog::make_key;

namespace {

constexpr std::size_t kTakenOverAtATime = 256;  // events per transaction
constexpr std::size_t kOtherFields = 256;        // bytes of an event besides its path, source and text

std::uint64_t number_of(std::string_view key) { return Reader(key.substr(1)).get_be64(); }

Result<Event> decode_chained(std::uint64_t number, std::string_view bytes) {
  RK_TRY_ASSIGN(const ChainedRecord record, ChainedRecord::decode(bytes));
  return decode_body(number, record.body);
}

}  // namespace

// An event that does not decode, because a later version made it, stays where it is.
Status AuditLog::load(const crypto::Key& root, const Uuid& store) {
  RK_TRY_ASSIGN(EventChain chain, EventChain::create(root, store));
  chain_.emplace(std::move(chain));
  Lock lock(mutex_);
  const auto add_to_index = [&](std::uint64_t number, const Result<Event>& event) REQUIRES(mutex_) {
    if (event) index_.add(number, {event->kind, event->uid});
    return true;
  };
  std::uint64_t first_chained = 0, newest_before = 0;
  RK_TRY(catalog_.scan(make_key(Table::event), "", [&](std::string_view key, std::string_view value) REQUIRES(mutex_) {
    const std::uint64_t number = number_of(key);
    if (first_chained == 0) first_chained = number;
    return add_to_index(number, decode_chained(number, value));
  }));
  RK_TRY(catalog_.scan(make_key(Table::audit), "", [&](std::string_view key, std::string_view value) REQUIRES(mutex_) {
    newest_before = number_of(key);
    if (first_chained != 0 && newest_before >= first_chained) return false;  // see take_over()
    return add_to_index(newest_before, decode(newest_before, value));
  }));
  first_chained_ = first_chained != 0 ? first_chained : newest_before + 1;
  newest_at_load_ = index_.newest();
  return {};
}

Status AuditLog::take_over() {
  RK_TRY_ASSIGN(const auto bytes, catalog_.get(make_key(Table::event_head)));
  if (!bytes) return {};
  RK_TRY_ASSIGN(const ChainHead head, ChainHead::decode(*bytes));
  for (std::string from = make_key(Table::audit, head.begun);;) {
    std::vector<Event> some;
    RK_TRY(catalog_.scan(make_key(Table::audit), from, [&](std::string_view key, std::string_view value) {
      if (auto event = decode(number_of(key), value)) some.push_back(std::move(*event));
      return some.size() < kTakenOverAtATime;
    }));
    if (some.empty()) return {};
    from = make_key(Table::audit, some.back().number + 1);
    WriteTxn txn(catalog_);
    for (Event& event : some) {
      txn.erase(make_key(Table::audit, event.number));
      RK_TRY(add(txn, std::move(event)));
    }
    RK_TRY(txn.commit());
  }
}

std::string AuditLog::key_of(std::uint64_t number) const {
  return make_key(number < first_chained_ ? Table::audit : Table::event, number);
}

// The number comes from the head, not from memory: if a transaction is given up, the next one uses its number.
Status AuditLog::add(WriteTxn& txn, Event event) {
  if (event.time == 0) event.time = now();
  Lock lock(mutex_);
  RK_TRY_ASSIGN(ChainHead head, head_in(txn));
  RK_TRY(settle(txn, head));
  RK_TRY(make_room(txn, head, {event.kind, event.uid}));
  const ChainedRecord record{head.newest, encode_body(event)};
  const std::uint64_t number = head.next++;
  head.newest = chain_->link_of(number, record);
  head.add(head.newest);
  ++head.kept;
  txn.put(make_key(Table::event, number), record.encode());
  txn.put(make_key(Table::event_head), head.encode());
  index_.add(number, {event.kind, event.uid});
  return {};
}

Status AuditLog::add(Event event) {
  WriteTxn txn(catalog_);
  RK_TRY(add(txn, std::move(event)));
  RK_TRY(txn.commit());
  return {};
}

Result<ChainHead> AuditLog::head_in(const WriteTxn& txn) {
  RK_TRY_ASSIGN(const auto bytes, txn.get(make_key(Table::event_head)));
  if (bytes) return ChainHead::decode(*bytes);
  if (newest_at_load_ < first_chained_) return ChainHead::starting_at(first_chained_);
  log::error("the head of the audit log is missing: its chain begins anew with event {}", newest_at_load_ + 1);
  return ChainHead::starting_at(newest_at_load_ + 1);
}

// Corrects the index if the transaction of an earlier call was given up.
Status AuditLog::settle(const WriteTxn& txn, const ChainHead& head) {
  index_.remove_from(head.next);
  std::vector<Dropped> in_this_transaction;
  for (const Dropped& one : dropped_) {
    RK_TRY_ASSIGN(const auto before, catalog_.get(key_of(one.number)));
    if (!before) continue;
    RK_TRY_ASSIGN(const auto now, txn.get(key_of(one.number)));
    if (now) index_.add(one.number, one.entry);
    else in_this_transaction.push_back(one);
  }
  dropped_ = std::move(in_this_transaction);
  return {};
}

Status AuditLog::make_room(WriteTxn& txn, ChainHead& head, const EventIndex::Entry& added) {
  while (const auto number = index_.to_drop(added)) {
    RK_TRY(drop(txn, head, *number));
    if (const auto entry = index_.remove(*number)) dropped_.push_back({*number, *entry});
  }
  return {};
}

Status AuditLog::drop(WriteTxn& txn, ChainHead& head, std::uint64_t number) {
  const std::string key = key_of(number);
  RK_TRY_ASSIGN(const auto bytes, txn.get(key));
  if (!bytes) return {};
  txn.erase(key);
  if (number < first_chained_ || number < head.begun) return {};
  if (const auto record = ChainedRecord::decode(*bytes)) head.subtract(chain_->link_of(number, *record));
  if (head.kept > 0) --head.kept;
  return {};
}

Result<std::optional<Event>> AuditLog::read(std::uint64_t number) const {
  RK_TRY_ASSIGN(const auto bytes, catalog_.get(key_of(number)));
  if (!bytes) return std::optional<Event>{};  // its transaction was given up, or it has just been dropped
  RK_TRY_ASSIGN(Event event, number < first_chained_ ? decode(number, *bytes) : decode_chained(number, *bytes));
  return std::optional(std::move(event));
}

Result<std::vector<Event>> AuditLog::find(const EventQuery& query) const {
  // Before the index: otherwise an event whose transaction is under way could be missed, and a later one found.
  RK_TRY_ASSIGN(const auto head, catalog_.get(make_key(Table::event_head)));
  std::uint64_t end = first_chained_;
  if (head) {
    RK_TRY_ASSIGN(end, ChainHead::decode(*head).map(&ChainHead::next));
  }
  std::vector<std::uint64_t> numbers;
  {
    Lock lock(mutex_);
    numbers = index_.find(query, end);
  }
  std::vector<Event> found;
  std::size_t bytes = 0;
  for (const std::uint64_t number : numbers) {
    RK_TRY_ASSIGN(std::optional<Event> event, read(number));
    if (!event) continue;
    bytes += event->path.size() + event->source.size() + event->text.size() + kOtherFields;
    if (bytes > query.most_bytes && !found.empty()) break;
    found.push_back(std::move(*event));
  }
  return found;
}

Result<LogVerification> AuditLog::verify() const {
  const WriteTxn nothing_changes(catalog_);
  return chain_->verify(catalog_);
}

EventKey key_named(const kms::KeyDirectory& keys, const std::optional<kms::KeyId>& id) {
  if (!id) return {};
  const auto info = keys.find(*id);
  return {to_hex(*id), info ? info->alias : ""};
}

}  // namespace rekeyfs::audit
