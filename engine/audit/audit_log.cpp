#include "engine/audit/audit_log.h"

#include <algorithm>

#include "engine/audit/event_record.h"

namespace rekeyfs::audit {

using catalog::Table;
using catalog::WriteTxn;
using catalog::make_key;

Status AuditLog::load() {
  std::uint64_t first = 0, last = 0;
  RK_TRY(catalog_.scan(make_key(Table::audit), "", [&](std::string_view key, std::string_view) {
    last = Reader(key.substr(1)).get_be64();
    if (first == 0) first = last;
    return true;
  }));
  next_ = last + 1;
  oldest_ = std::max<std::uint64_t>(first, 1);
  return {};
}

Status AuditLog::add(WriteTxn& txn, Event event) {
  if (event.time == 0) event.time = now();
  const std::uint64_t number = next_.fetch_add(1);
  txn.put(make_key(Table::audit, number), encode(event));
  // Which entries were dropped is read from the catalog, not remembered: if a transaction is given up, the next one has
  // to drop its entries.
  for (std::uint64_t old = oldest_; old + kMaxEvents <= number; ++old) {
    const std::string key = make_key(Table::audit, old);
    RK_TRY_ASSIGN(const auto there, catalog_.get(key));
    if (there) txn.erase(key);
    else if (old == oldest_) ++oldest_;
  }
  return {};
}

Status AuditLog::add(Event event) {
  WriteTxn txn(catalog_);
  RK_TRY(add(txn, std::move(event)));
  RK_TRY(txn.commit());
  return {};
}

Result<std::vector<Event>> AuditLog::find(const EventQuery& query) const {
  const std::uint64_t end = next_;
  const std::uint64_t kept = end > kMaxEvents ? end - kMaxEvents : 1;
  const std::uint64_t first = std::max(kept, query.after + 1);
  std::vector<Event> found;
  for (std::uint64_t number = end; number > first && found.size() < query.most;) {
    RK_TRY_ASSIGN(const auto bytes, catalog_.get(make_key(Table::audit, --number)));
    if (!bytes) continue;  // its transaction was given up, or it has just been dropped
    RK_TRY_ASSIGN(Event event, decode(number, *bytes));
    if (query.uid && event.uid != *query.uid) continue;
    if (query.kind && event.kind != *query.kind) continue;
    found.push_back(std::move(event));
  }
  std::reverse(found.begin(), found.end());
  return found;
}

EventKey key_named(const kms::KeyDirectory& keys, const std::optional<kms::KeyId>& id) {
  if (!id) return {};
  const auto info = keys.find(*id);
  return {to_hex(*id), info ? info->alias : ""};
}

}  // namespace rekeyfs::audit
