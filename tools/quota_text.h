// The quota of a directory, as info and status show it.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

namespace rekeyfs::tools {

// "1.2 GiB of 10.0 GiB, 12 of 500 images"; a kind without a limit shows what is in use.
std::string quota_text(const nlohmann::json& quota);

}  // namespace rekeyfs::tools
