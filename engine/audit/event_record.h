// EventRecord: the bytes of an entry of the audit log (Table::audit). Specified in man/rekeyfs-format.5. Pure functions.
#pragma once

#include <string>
#include <string_view>

#include "engine/types/event.h"


namespace rekeyfs::audit {

// The number is the record's key and not in it. Longer texts are cut, so that nobody fills the store with long paths.
inline constexpr std::size_t kMostText = 2048;  // bytes

std::string encode(const Event& event);
Result<Event> decode(std::uint64_t number, std::string_view bytes);

}  // namespace rekeyfs::audit
