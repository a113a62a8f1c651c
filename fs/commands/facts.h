// Facts: the engine's types as JSON, for the answers to commands. Pure functions; the members are documented in
// rekeyfs(1).
#pragma once

#include <string_view>

#include <nlohmann/json.hpp>

#include "engine/engine.h"

namespace rekeyfs::fs {

// Text chosen by users (names, attribute values) may be any bytes, but JSON must be UTF-8: U+FFFD stands for the rest.
nlohmann::json text(std::string_view bytes);
std::string_view kind_text(NodeKind kind);

nlohmann::json facts_of(const Replication& replication);
nlohmann::json facts_of(const Refusal& refusal);
nlohmann::json facts_of(const Error& error);
nlohmann::json facts_of(const Event& event);
nlohmann::json facts_of(const KeyFacts& key);
nlohmann::json facts_of(const LayerInfo& layer);
nlohmann::json facts_of(const QuotaState& quota);
nlohmann::json facts_of(const BootReads& boot);
nlohmann::json summary_of(const BootReads& boot);
// What stat(2) tells of a node, and what takes permission to read it.
nlohmann::json stat_facts_of(const NodeInfo& info);
nlohmann::json content_facts_of(const NodeInfo& info);

template <typename Range>
nlohmann::json array_of(const Range& range) {
  nlohmann::json array = nlohmann::json::array();
  for (const auto& item : range) array.push_back(facts_of(item));
  return array;
}

}  // namespace rekeyfs::fs
