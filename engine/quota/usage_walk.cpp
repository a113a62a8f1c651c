#include "engine/quota/usage_walk.h"

#include <algorithm>

#include "engine/replication/space_need.h"

namespace rekeyfs::quota {

using blocks::LayerRecord;
using catalog::Table;
using catalog::make_key;
using names::InodeRecord;

namespace {

bool is_gone(const Error& error) { return error.code == Errc::stale; }

}  // namespace

Status UsageWalk::add_below(Ino top) {
  std::vector<Ino> directories{top};
  while (!directories.empty()) {
    const Ino directory = directories.back();
    directories.pop_back();
    RK_TRY(add_attributes(directory));
    RK_TRY(add_entries(directory, directories));
  }
  return {};
}

Status UsageWalk::add(Ino node) {
  const auto inode = tree_.get(node);
  if (!inode) return is_gone(inode.error()) ? Status{} : fail(inode.error());
  ++found_.images;
  return inode->kind == NodeKind::directory ? add_below(node) : add_file(node);
}

Status UsageWalk::add_entries(Ino directory, std::vector<Ino>& directories) {
  constexpr std::size_t kSlice = 256;
  for (std::uint64_t cookie = 0;;) {
    if (stopped_.load()) return fail(Errc::busy, "the store is being closed");
    RK_TRY_ASSIGN(const std::vector<DirectoryEntry> entries, tree_.list(directory, cookie, kSlice));
    for (const DirectoryEntry& entry : entries) {
      ++found_.images;
      if (entry.kind == NodeKind::directory) directories.push_back(entry.ino);
      else RK_TRY(add_file(entry.ino));
    }
    if (entries.size() < kSlice) return {};
    cookie = entries.back().next;
  }
}

Status UsageWalk::add_file(Ino ino) {
  const auto inode = tree_.get(ino);
  if (!inode) return is_gone(inode.error()) ? Status{} : fail(inode.error());
  if (inode->links > 1 && !linked_.insert(ino).second) return {};
  RK_TRY(add_attributes(ino));
  if (inode->kind != NodeKind::image) return {};
  const auto bytes = tree_.look_at(ino, [&](const InodeRecord& now) { return paid_by(ino, now); });
  if (bytes) {
    found_.bytes += *bytes;
    return {};
  }
  // An image whose records are damaged must not keep the others from being counted.
  return is_gone(bytes.error()) || bytes.error().code == Errc::corrupt ? Status{} : fail(bytes.error());
}

Status UsageWalk::add_attributes(Ino ino) {
  return catalog_.scan(make_key(Table::attribute, ino.value()), "", [&](std::string_view, std::string_view value) {
    found_.bytes += value.size();
    return true;
  });
}

// A layer below the top disappears when one above it stores everything itself; a second look does not come to it.
Result<std::uint64_t> UsageWalk::paid_by(Ino image, const InodeRecord& inode) {
  constexpr int kMaxLooks = 8;
  for (int look = 1;; ++look) {
    auto layers = layers_of(image, inode);
    if (!layers && look < kMaxLooks) continue;
    if (!layers) return fail(layers.error());
    unowned_.insert(layers->unowned.begin(), layers->unowned.end());
    return layers->is_rotating ? std::max(layers->own, layers->inherited) : layers->own + layers->inherited;
  }
}

Result<UsageWalk::Layers> UsageWalk::layers_of(Ino image, const InodeRecord& inode) {
  Layers layers;
  RK_TRY_ASSIGN(LayerRecord record, layers_.record_of(inode.image.layer));
  bool transforms = false;
  RK_TRY_ASSIGN(layers.own, bytes_of(inode.image.layer, record, transforms));
  layers.is_rotating = transforms && inode.image.lineage && inode.image.lineage->source == inode.image.id;
  while (const LayerId id = record.base) {
    RK_TRY_ASSIGN(record, layers_.record_of(id));
    // Whatever is below a layer that was counted was counted with it.
    if ((record.owner && record.owner != image) || unowned_.contains(id)) break;
    RK_TRY_ASSIGN(const std::uint64_t bytes, bytes_of(id, record, transforms));
    layers.inherited += bytes;
    layers.unowned.push_back(id);
  }
  return layers;
}

// A layer that is being filled counts as what it is going to store.
Result<std::uint64_t> UsageWalk::bytes_of(LayerId id, const LayerRecord& record, bool& transforms) {
  RK_TRY_ASSIGN(const auto sizes, layers_.sizes_of(id));
  std::uint64_t bytes = sizes.stored;
  if (record.promised) {
    RK_TRY_ASSIGN(const std::uint64_t occupied, layers_.occupied_by(id));
    bytes = std::max(bytes, occupied);
  }
  transforms = false;
  if (!record.base) return bytes;
  RK_TRY_ASSIGN(const LayerRecord base, layers_.record_of(record.base));
  transforms = record.transforms(base);
  if (!transforms) return bytes;
  RK_TRY_ASSIGN(const auto need, replication::space_needed_over(layers_, record.base, sizes.content, record.base_format));
  return std::max(bytes, need.most);
}

}  // namespace rekeyfs::quota
