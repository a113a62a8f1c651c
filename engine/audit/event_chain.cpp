#include "engine/audit/event_chain.h"

#include <algorithm>

namespace rekeyfs::audit {

using catalog::Table;
using catalog::make_key;

namespace {

constexpr std::size_t kMaxProblems = 20;

std::uint64_t number_of(std::string_view key) { return Reader(key.substr(1)).get_be64(); }

std::array<std::uint64_t, 4> parts_of(const Link& link) {
  std::array<std::uint64_t, 4> parts;
  Reader in{ByteView(link)};
  for (std::uint64_t& part : parts) part = in.get<std::uint64_t>();
  return parts;
}

std::string event_text(std::uint64_t number) { return "event " + std::to_string(number); }

// Follows the chain through the events that are kept.
class Walk {
 public:
  Walk(const EventChain& chain, const ChainHead& head) : chain_(chain), head_(head) {}

  void take(std::uint64_t number, std::string_view bytes) {
    result_.newest = number;
    if (number < head_.begun) {
      ++result_.unverified;
      return;
    }
    const auto record = ChainedRecord::decode(bytes);
    if (!record) return add_problem(event_text(number) + " is malformed");
    if (number == last_ + 1 && record->before != link_)
      add_problem(event_text(number) + " does not follow " + event_text(last_) + ": one of them was changed");
    link_ = chain_.link_of(number, *record);
    last_ = number;
    found_.add(link_);
    ++found_.kept;
  }

  LogVerification finish() {
    const std::uint64_t newest = head_.next - 1;
    if (head_.kept > 0 && (last_ != newest || link_ != head_.newest))
      add_problem("the newest event, number " + std::to_string(newest) + ", is missing or was changed");
    if (found_.kept < head_.kept) add_problem(std::to_string(head_.kept - found_.kept) + " events are missing");
    if (found_.kept > head_.kept) add_problem(std::to_string(found_.kept - head_.kept) + " events were added");
    if (found_.kept == head_.kept && found_.sum != head_.sum) add_problem("an event was changed, or exchanged for another");
    result_.events = found_.kept;
    result_.newest = std::max(result_.newest, newest);
    if (head_.next > head_.begun) {
      result_.first = head_.begun;
      result_.last = newest;
    }
    return std::move(result_);
  }

 private:
  void add_problem(std::string what) {
    if (result_.problems.size() < kMaxProblems) result_.problems.push_back(std::move(what));
  }

  const EventChain& chain_;
  const ChainHead& head_;
  ChainHead found_;
  std::uint64_t last_ = 0;
  Link link_{};
  LogVerification result_;
};

}  // namespace

void ChainHead::add(const Link& link) {
  const auto parts = parts_of(link);
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += parts[i];
}
void ChainHead::subtract(const Link& link) {
  const auto parts = parts_of(link);
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] -= parts[i];
}

std::string ChainHead::encode() const {
  Writer out;
  out.put(next).put(begun).put(kept).put_raw(newest);
  for (const std::uint64_t part : sum) out.put(part);
  return out.take();
}

Result<ChainHead> ChainHead::decode(std::string_view bytes) {
  Reader in(bytes);
  ChainHead head;
  head.next = in.get<std::uint64_t>();
  head.begun = in.get<std::uint64_t>();
  head.kept = in.get<std::uint64_t>();
  in.get_into(head.newest);
  for (std::uint64_t& part : head.sum) part = in.get<std::uint64_t>();
  if (!in.finished() || head.begun == 0 || head.next < head.begun || head.kept > head.next - head.begun)
    return fail(Errc::corrupt, "the head of the audit log is malformed");
  return head;
}

std::string ChainedRecord::encode() const { return Writer().put_raw(before).put_raw(as_bytes(body)).take(); }

Result<ChainedRecord> ChainedRecord::decode(std::string_view bytes) {
  Reader in(bytes);
  ChainedRecord record;
  in.get_into(record.before);
  record.body = as_text(in.get_raw(in.left()));
  if (!in.finished() || record.body.empty()) return fail(Errc::corrupt, "an entry of the audit log is malformed");
  return record;
}

Result<EventChain> EventChain::create(const crypto::Key& root, const Uuid& store) {
  RK_TRY_ASSIGN(const crypto::Key key, crypto::derive_key(root, store, "rekeyfs audit chain"));
  RK_TRY_ASSIGN(crypto::Mac mac, crypto::Mac::create(key));
  return EventChain(std::move(mac));
}

Link EventChain::link_of(std::uint64_t number, const ChainedRecord& record) const {
  const std::string front = Writer().put_raw(record.before).put_be64(number).take();
  return mac_.digest(as_bytes(front), as_bytes(record.body));
}

Result<LogVerification> EventChain::verify(const catalog::Catalog& catalog) const {
  LogVerification before_chain;
  RK_TRY(catalog.scan(make_key(Table::audit), "", [&](std::string_view key, std::string_view) {
    ++before_chain.unverified;
    before_chain.newest = number_of(key);
    return true;
  }));
  RK_TRY_ASSIGN(const auto bytes, catalog.get(make_key(Table::event_head)));
  ChainHead head;
  if (bytes) {
    RK_TRY_ASSIGN(head, ChainHead::decode(*bytes));
  }
  Walk walk(*this, head);
  RK_TRY(catalog.scan(make_key(Table::event), "", [&](std::string_view key, std::string_view value) {
    walk.take(number_of(key), value);
    return true;
  }));
  LogVerification result = walk.finish();
  result.unverified += before_chain.unverified;
  result.newest = std::max(result.newest, before_chain.newest);
  if (!bytes && result.events > 0) result.problems = {"the head of the audit log is missing"};
  return result;
}

}  // namespace rekeyfs::audit
