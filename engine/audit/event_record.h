// EventRecord: the encoding of an audit log entry: as a record of its own (Table::audit), and as the body of a record in
// the chain (Table::event, event_chain.h). Specified in man/rekeyfs-format.5. Pure functions.
#pragma once

#include <string>
#include <string_view>

#include "engine/types/event.h"


namespace rekeyfs::audit {

// The number is the record's key and not part of it. Longer texts are truncated, so that long paths cannot fill the
// store.
inline constexpr std::size_t kMaxText = 2048;  // in bytes

std::string encode(const Event& event);
Result<Event> decode(std::uint64_t number, std::string_view bytes);

// The same, and the fields that came later.
std::string encode_body(const Event& event);
Result<Event> decode_body(std::uint64_t number, std::string_view body);

}  // namespace rekeyfs::audit
