#include "engine/keys/key_uses.h"

#include <algorithm>
#include <cstdio>
#include <unordered_set>

#include "engine/types/attributes.h"

namespace rekeyfs::keys {

using catalog::Table;
using names::InodeRecord;

Result<std::vector<KeyUse>> KeyUses::of(const kms::KeyId& key) const {
  std::vector<KeyUse> uses;
  RK_TRY(visit(key, [&](Ino image, bool is_top) {
    if (tree_.get(image)) uses.push_back(use_of(image, is_top));  // otherwise it was deleted meanwhile
  }, [] { return true; }));
  std::sort(uses.begin(), uses.end(), [](const KeyUse& a, const KeyUse& b) { return a.path < b.path; });
  return uses;
}

KeyUse KeyUses::use_of(Ino image, bool is_top) const {
  if (is_top) return {image, tree_.path_of(image), "encrypted with it", "until it is deleted"};
  return {image, tree_.path_of(image), "source of a replication", until_replicated(image)};
}

// Walks upwards from the key's layers. An image that gets a new top layer meanwhile is not missed: the new layer has
// the highest number and is a child of the one that it replaces. Therefore a layer's record is read before its children
// are listed.
Result<bool> KeyUses::visit(const kms::KeyId& key, const Visit& visit, const GoOn& go_on) const {
  std::vector<Found> left;
  Status first_failure = find_layers(key, left, go_on);
  std::unordered_set<LayerId> seen;
  std::unordered_set<Ino> visited;
  const auto visit_owner = [&](const Found& found, bool is_top) {
    seen.insert(found.layer);
    if (found.owner && visited.insert(found.owner).second) visit(found.owner, is_top);
  };
  for (const Found& found : left) visit_owner(found, true);
  while (!left.empty()) {
    if (!go_on()) return false;
    const LayerId layer = left.back().layer;
    left.pop_back();
    std::vector<Found> readers;
    const Status listed = find_readers(layer, readers);
    if (first_failure) first_failure = listed;
    for (const Found& reader : readers) {
      if (seen.contains(reader.layer)) continue;
      visit_owner(reader, false);
      left.push_back(reader);
    }
  }
  RK_TRY(first_failure);
  return go_on();
}

Status KeyUses::find_layers(const kms::KeyId& key, std::vector<Found>& found, const GoOn& go_on) const {
  Status first_failure;
  RK_TRY(store_.catalog().scan(catalog::make_key(Table::layer), "", [&](std::string_view at, std::string_view value) {
    const auto record = blocks::LayerRecord::decode(value);
    if (!record && first_failure) first_failure = fail(record.error());
    if (record && record->key == key) found.push_back({LayerId{Reader(at.substr(1)).get_be64()}, record->owner});
    return go_on();
  }));
  return first_failure;
}

Status KeyUses::find_readers(LayerId layer, std::vector<Found>& found) const {
  Status first_failure;
  RK_TRY_ASSIGN(const std::vector<LayerId> children, store_.layers().children_of(layer));
  for (const LayerId child : children) {
    RK_TRY_ASSIGN(const auto bytes, store_.catalog().get(catalog::make_key(Table::layer, child.value())));
    if (!bytes) continue;  // the layer was deleted meanwhile
    const auto record = blocks::LayerRecord::decode(*bytes);
    if (!record && first_failure) first_failure = fail(record.error());
    found.push_back({child, record ? record->owner : Ino{}});
  }
  return first_failure;
}

std::string KeyUses::until_replicated(Ino image) const {
  std::string until = "until its replication is complete";
  const auto job = filler_.progress_of(image);
  if (!job || job->total == 0) return until;
  char text[64];
  std::snprintf(text, sizeof text, " (%.1f %% done", job->percent());
  until += text;
  if (job->error.empty() && job->rate > 0) {
    std::snprintf(text, sizeof text, ", about %.0f s left", static_cast<double>(job->total - job->done) / job->rate);
    until += text;
  }
  return until + ")";
}

}  // namespace rekeyfs::keys
