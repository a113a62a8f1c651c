// The text forms of quotas: of the attributes user.rekeyfs.quota and user.rekeyfs.usage, and in messages.
#pragma once

#include <string>
#include <string_view>

#include "engine/base/result.h"
#include "engine/namespace/inode_record.h"
#include "engine/quota/usage.h"

namespace rekeyfs::quota {

// "bytes=10G,images=500", or one of the two. A number of bytes may end in K, M, G, T or P, powers of 1024. Errc::invalid
// also for 0, because a quota is removed by removing the attribute.
Result<names::Quota> parse(std::string_view text);
// The same with the largest unit that gives a whole number, so that "10G" reads back as "10G".
std::string text_of(const names::Quota& quota);
std::string text_of(const Usage& usage);  // whole numbers: "bytes=1288490188,images=12"

std::string size_text(std::uint64_t bytes);  // "9.5 GiB"

}  // namespace rekeyfs::quota
