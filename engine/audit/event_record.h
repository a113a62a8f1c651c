// EventRecord: the encoding of an audit log entry (Table::audit). Specified in man/rekeyfs-format.5. Pure functions.
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

}  // namespace rekeyfs::audit
