// EventChain: binds each event of the audit log to the one before it, so that an event that is missing, changed or in
// another place is found.
//
// The link of an event is a MAC over the link of the event before it, its number and its body. A record (Table::event) is
// the link before it and the body. The head (Table::event_head) has the newest link, and the number and the sum of the
// links of the events that are kept: a multiset hash (see catalog/record_seal.h), which an event may leave when its ring
// is full, wherever it stands in the chain. Head and events change in one transaction. Thread-safe.
#pragma once

#include <optional>

#include "engine/catalog/catalog.h"
#include "engine/crypto/hash.h"
#include "engine/types/event.h"

namespace rekeyfs::audit {

using Link = crypto::Digest;

struct ChainHead {
  std::uint64_t next = 1;   // number of the next event
  std::uint64_t begun = 1;  // events with lower numbers are not covered by the chain
  std::uint64_t kept = 0;   // events of the chain that the catalog has
  Link newest{};            // zeros before the first event
  std::array<std::uint64_t, 4> sum{};

  // What the chain is before its first event, which gets that number.
  static ChainHead starting_at(std::uint64_t number) { return {number, number, 0, {}, {}}; }
  void add(const Link& link);
  void subtract(const Link& link);
  std::string encode() const;
  static Result<ChainHead> decode(std::string_view bytes);
};

struct ChainedRecord {
  Link before{};
  std::string body;  // event_record.h
  std::string encode() const;
  static Result<ChainedRecord> decode(std::string_view bytes);
};

class EventChain {
 public:
  static Result<EventChain> create(const crypto::Key& root, const Uuid& store);

  Link link_of(std::uint64_t number, const ChainedRecord& record) const;
  // Reads all events. Nothing may be added meanwhile.
  Result<LogVerification> verify(const catalog::Catalog& catalog) const;

 private:
  explicit EventChain(crypto::Mac mac) : mac_(std::move(mac)) {}
  crypto::Mac mac_;
};

}  // namespace rekeyfs::audit
