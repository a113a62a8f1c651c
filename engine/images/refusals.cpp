#include "engine/images/refusals.h"

#include "engine/base/log.h"
#include "engine/keys/key_access.h"

namespace rekeyfs::images {

Status Refusals::check_key(const std::optional<kms::KeyId>& key, const Caller& caller, const std::function<std::string()>& path) {
  const Status may = keys::may_use(store_.keys(), key, caller);
  if (may) return {};
  Event refusal = event_of(path(), caller, may.error());
  refusal.key = audit::key_named(store_.keys(), key);
  record(std::move(refusal));
  return may;
}

Event Refusals::event_of(std::string path, const Caller& caller, const Error& rule) {
  Event refusal;
  refusal.kind = EventKind::refused;
  refusal.path = std::move(path);
  refusal.uid = caller.uid;
  refusal.code = rule.code;
  refusal.text = describe(rule);
  return refusal;
}

void Refusals::record(Event refusal) {
  if (refusal.time == 0) refusal.time = now();
  bool is_new = false, has_windows = false;
  {
    Lock lock(mutex_);
    has_windows = windows_.next_end().has_value();
    is_new = windows_.is_new(refusal, RefusalWindows::Clock::now());
  }
  if (!has_windows) background_.wake();
  if (is_new) write(std::move(refusal));
}

void Refusals::record_order(Event order, const Caller& caller, const Error& error) {
  if (error.code != Errc::not_permitted && error.code != Errc::access_denied) return;
  Event refusal = event_of(std::move(order.path), caller, error);
  refusal.key = std::move(order.key);
  record(std::move(refusal));
}

void Refusals::write(Event refusal) {
  const std::string repeats = refusal.count > 1 ? ", " + std::to_string(refusal.count) + " times" : "";
  log::warn("refused: {} -> {}: {} (uid {}{})", refusal.source, refusal.path, refusal.text, refusal.uid, repeats);
  // The refusal stands even if it cannot be recorded, as on a full disk; a store that is read-only records none.
  if (const Status kept = audit_.add(std::move(refusal)); !kept && kept.error().code != Errc::read_only)
    log::error("cannot write to the audit log: {}", describe(kept.error()));
}

// --- in the background -----------------------------------------------------------------------------------------

Status Refusals::start() {
  return background_.start([this] { return step(); });
}

void Refusals::stop() {
  background_.stop();
  std::vector<Event> counted;
  {
    Lock lock(mutex_);
    counted = windows_.end_all();
  }
  for (Event& refusal : counted) write(std::move(refusal));
}

Background::Duration Refusals::step() {
  std::vector<Event> counted;
  std::optional<RefusalWindows::Clock::time_point> next;
  const auto now = RefusalWindows::Clock::now();
  {
    Lock lock(mutex_);
    counted = windows_.end(now);
    next = windows_.next_end();
  }
  for (Event& refusal : counted) write(std::move(refusal));
  return next ? *next - now : Background::kUntilWoken;
}

}  // namespace rekeyfs::images
