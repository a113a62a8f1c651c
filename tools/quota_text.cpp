#include "tools/quota_text.h"

#include "tools/human.h"

namespace rekeyfs::tools {

std::string quota_text(const nlohmann::json& quota) {
  std::string text = bytes_text(quota.at("bytes").get<std::uint64_t>());
  if (!quota.at("most_bytes").is_null()) text += " of " + bytes_text(quota.at("most_bytes").get<std::uint64_t>());
  text += ", " + quota.at("images").dump();
  if (!quota.at("most_images").is_null()) text += " of " + quota.at("most_images").dump();
  return text + " images";
}

}  // namespace rekeyfs::tools
