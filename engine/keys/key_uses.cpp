#include "engine/keys/key_uses.h"

#include <algorithm>
#include <cstdio>

#include "engine/types/attributes.h"

namespace rekeyfs::keys {

using catalog::Table;
using names::InodeRecord;

Result<std::vector<KeyUses::Use>> KeyUses::of(const kms::KeyId& key) const {
  // Collected first: while the catalog is scanned, its writers wait.
  std::vector<Ino> images;
  RK_TRY(store_.catalog().scan(catalog::make_key(Table::inode), "", [&](std::string_view at, std::string_view value) {
    const auto inode = InodeRecord::decode(value);
    if (inode && inode->kind == NodeKind::image) images.push_back(Ino{Reader(at.substr(1)).get_be64()});
    return true;
  }));
  std::vector<Use> uses;
  for (const Ino image : images) {
    auto use = use_by(image, key);
    if (!use && use.error().code == Errc::stale) continue;  // deleted meanwhile
    if (!use) return fail(use.error());
    if (*use) uses.push_back(std::move(**use));
  }
  std::sort(uses.begin(), uses.end(), [](const Use& a, const Use& b) { return a.facts.path < b.facts.path; });
  return uses;
}

Result<std::optional<KeyUses::Use>> KeyUses::use_by(Ino image, const kms::KeyId& key) const {
  RK_TRY_ASSIGN(const std::vector<LayerAt> chain, chain_of(image));
  const auto needs = [&](const LayerAt& layer) { return layer.record.key == key; };
  const auto found = std::find_if(chain.begin(), chain.end(), needs);
  if (found == chain.end()) return std::optional<Use>{};
  if (found == chain.begin())
    return std::optional(Use{image, {tree_.path_of(image), "encrypted with it", "until it is deleted"}});
  return std::optional(Use{image, {tree_.path_of(image), "source of a replication", until_replicated(image)}});
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

Result<std::vector<KeyUses::LayerAt>> KeyUses::chain_of(Ino image) const {
  // Layers go while they are looked at, when a replication ends or content is replaced. Then the image has others.
  constexpr int kMostAttempts = 8;
  for (int attempt = 1;; ++attempt) {
    RK_TRY_ASSIGN(const InodeRecord inode, tree_.get(image));
    auto chain = chain_from(inode.image.layer);
    if (chain || attempt == kMostAttempts) return chain;
  }
}

Result<std::vector<KeyUses::LayerAt>> KeyUses::chain_from(LayerId top) const {
  std::vector<LayerAt> chain;
  for (LayerId id = top; id; id = chain.back().record.base) {
    RK_TRY_ASSIGN(blocks::LayerRecord record, store_.layers().record_of(id));
    chain.push_back({id, std::move(record)});
  }
  return chain;
}

}  // namespace rekeyfs::keys
