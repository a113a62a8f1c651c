// LayerSwap: the only way to give an image a new top layer: creation, copy, overlay, replacement, rotation.
//
// prepare() draws the layer's number and data key. It may call the key service, so the caller holds no lock. One of the
// other functions then consumes the swap in one transaction; an unused swap leaves nothing behind. Its caller holds
// Image::mutex exclusively, so that no change of the old top layer is in progress. Not thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "engine/audit/audit_log.h"
#include "engine/boot/boot_profiles.h"
#include "engine/images/image.h"
#include "engine/namespace/tree.h"
#include "engine/replication/filler.h"
#include "engine/store/store.h"

namespace rekeyfs::images {

class LayerSwap {
 public:
  struct Parts {  // all must outlive the swap
    store::Store& store;
    names::Tree& tree;
    replication::Filler& filler;
    const boot::BootProfiles& profiles;
    audit::AuditLog& audit;
  };
  // Without `key` the layer is plain. Errc::no_key, Errc::key_revoked.
  static Result<LayerSwap> prepare(const Parts& parts, const std::optional<kms::KeyId>& key);
  // Replicates the image to itself, under the key: it continues in a new layer over its content. False if it has that key
  // already; Errc::busy while its content is being replaced. The caller announces the permissions.
  static Result<bool> rekey(const Parts& parts, Image& image, const kms::KeyId& key, uid_t asker) EXCLUDES(image.mutex);

  const std::optional<kms::KeyId>& key() const { return drawn_.record.key; }
  LayerId layer() const { return drawn_.id; }

  // For a new image whose record names layer(): adds the records of an empty layer to the transaction that creates it.
  void put_empty(catalog::WriteTxn& txn, Ino owner);

  // Puts the new layer over the image's current content; readers of that content keep it. If the key differs, or with a
  // disk `inside`, the image is thereby replicated to itself.
  Status overlay(Image& image, const DiskInside& inside = {}, uid_t asker = 0) REQUIRES(image.mutex);
  // Gives the image new, empty content under `policy`. prepare() was called with the policy's key.
  Status replace(Image& image, const names::Policy& policy) REQUIRES(image.mutex);

  // Describes a copy that the image becomes.
  struct Copied {
    Ino source;
    std::shared_ptr<blocks::Layer> base;  // the source's content
    DiskInside inside;
    std::uint64_t size = 0;   // of the copy, in bytes
    bool from_base = false;   // true: all content up to `size` comes from the base; false: starts as a hole
    uid_t asker = 0;
  };
  // Applies the copy's changes to the image's record. If it fails, the swap fails and nothing has changed.
  using Edit = std::function<Status(catalog::WriteTxn&, names::InodeRecord&)>;
  Status copy(Image& image, const Copied& copied, const Edit& edit) REQUIRES(image.mutex);

 private:
  using NewLayer = blocks::LayerRegistry::NewLayer;
  LayerSwap(const Parts& parts, NewLayer drawn) : parts_(parts), drawn_(std::move(drawn)) {}

  // The result of a swap once the base and the size of the new layer are known.
  struct Outcome {
    std::shared_ptr<blocks::Layer> top;
    std::shared_ptr<blocks::Layer> base;  // null: none
    bool transforms = false;
    bool keeps_old = false;  // the old top layer is the base
    std::optional<boot::BootProfile> profile;
    Event event;  // not recorded for an overlay with the same content and key, nor for empty content
  };
  Result<Outcome> open_over(const Image& image, std::shared_ptr<blocks::Layer> base, const DiskInside& inside,
                            std::uint64_t size, bool from_base) REQUIRES(image.mutex);
  Status commit(Image& image, Outcome outcome, const Edit& edit) REQUIRES(image.mutex);
  Status put_transformation(catalog::WriteTxn& txn, Ino ino, const Outcome& outcome, names::InodeRecord& inode);
  // Called outside a transaction because it may call the key service.
  Event event_of(Ino target, Ino source, const Outcome& outcome, uid_t asker) const;
  std::optional<boot::BootProfile> profile_to_carry(const Outcome& outcome) const;

  Parts parts_;
  NewLayer drawn_;
};

}  // namespace rekeyfs::images
