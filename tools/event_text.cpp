#include "tools/event_text.h"

#include <algorithm>

#include "engine/types/event.h"
#include "tools/human.h"

namespace rekeyfs::tools {
namespace {

using nlohmann::json;

std::string key_text(const json& event, const char* member) {
  std::string alias = event.value(member, "");
  if (!alias.empty()) return alias;
  std::string id = event.value(std::string(member) + "_id", "");
  return id.empty() ? "plain" : id;
}

std::string completed_text(const json& event) {
  std::string text = "completed " + event.value("path", "");
  const json& seconds = event.at("seconds");
  if (!seconds.is_number()) return text;
  auto bytes = event.at("bytes").get<std::uint64_t>();
  return text + ": " + bytes_text(bytes) + " at " +
         rate_text(static_cast<double>(bytes) / std::max(seconds.get<double>(), 1e-9));
}

// Of a refusal that stands for several.
std::string repeats_text(const json& event) {
  const std::uint64_t count = event.value("count", std::uint64_t{1});
  if (count < 2) return "";
  return " (" + std::to_string(count) + " times since " + local_moment_text(event.value("since", "")) + ")";
}

}  // namespace

std::string who_text(const json& event) {
  const auto uid = event.at("uid").get<std::uint32_t>();
  return uid == kSeveralUsers ? "several users" : user_text(uid);
}

std::string what_text(const json& event) {
  const std::string kind = event.value("kind", ""), path = event.value("path", ""), source = event.value("source", ""),
                    text = event.value("text", "");
  if (kind == "replication-asked")
    return "replicated " + source + " to " + path + " (" + key_text(event, "key_before") + " -> " +
           key_text(event, "key") + ")";
  if (kind == "cloned") return "cloned " + source + " to " + path + " (" + key_text(event, "key") + ")";
  if (kind == "replication-completed") return completed_text(event);
  if (kind == "replication-failed") return "stopped " + path + ": " + text;
  if (kind == "replication-recovered") return "resumed " + path;
  if (kind == "refused" && path.empty()) {
    const std::string about = event.value("key_id", "").empty() ? "" : " about the key " + key_text(event, "key");
    return "refused an order" + about + ": " + text + repeats_text(event);
  }
  if (kind == "refused") return "refused " + (source.empty() ? "" : source + " to ") + path + ": " + text + repeats_text(event);
  if (kind == "rotation-asked") return "gave " + path + " a new key (" + key_text(event, "key_before") + " -> " + key_text(event, "key") + ")";
  if (kind == "policy-changed") return "changed " + path + ": " + text;
  if (kind == "quota-changed") return "changed the quota of " + path + ": " + text;
  if (kind == "declassified") return "copied " + source + " to " + path + " in plain (" + key_text(event, "key_before") + " -> plain)";
  if (kind == "rotation-skipped") return "kept the key " + key_text(event, "key_before") + " of " + path + ": " + text;
  if (kind == "clock-jumped") return "the clock jumped: " + text;
  if (kind == "right-granted") return "granted a right to the key " + key_text(event, "key") + ": " + text;
  if (kind == "right-revoked") return "revoked a right to the key " + key_text(event, "key") + ": " + text;
  if (kind == "key-deletion-asked") return "asked to delete the key " + key_text(event, "key") + (text.empty() ? "" : ": " + text);
  if (kind == "key-deletion-cancelled") return "cancelled the deletion of the key " + key_text(event, "key");
  // "key-created" and similar ones, and kinds that only a newer daemon knows.
  std::string what = kind.starts_with("key-") ? kind.substr(4) + " the key " + key_text(event, "key") : kind + " " + path;
  return what + (text.empty() ? "" : ": " + text);
}

}  // namespace rekeyfs::tools
