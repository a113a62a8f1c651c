#include "tools/pages.h"

#include <algorithm>
#include <utility>

namespace rekeyfs::tools {

using nlohmann::json;

Outcome<json> call_for_replications(Target& target, const char* command) {
  RK_TRY_ASSIGN(json answer, target.call({{"command", command}}));
  json& all = answer.at("replications");
  for (json next = answer.value("next", json()); !next.is_null();) {
    RK_TRY_ASSIGN(json page, target.call({{"command", "progress"}, {"after", next}}));
    for (json& one : page.at("replications")) all.push_back(std::move(one));
    next = page.value("next", json());
  }
  answer.erase("next");
  std::sort(all.begin(), all.end(), [](const json& a, const json& b) { return a.at("path") < b.at("path"); });
  return answer;
}

}  // namespace rekeyfs::tools
