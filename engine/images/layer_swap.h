// LayerSwap: the one way to give an image a new top layer: creation, copy, overlay, replacement, rotation.
//
// prepare() draws the number and the data key of the layer, for which the key service may be asked: no lock is held. One
// of the others then uses it up, in one transaction; a swap that is not used leaves nothing behind. The caller holds
// Image::mutex exclusively, so no change of the old top is under way. Not thread-safe.
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
  struct Parts {  // what it works with; all outlive it
    store::Store& store;
    names::Tree& tree;
    replication::Filler& filler;
    const boot::BootProfiles& profiles;
    audit::AuditLog& audit;
  };
  // No key: plain. Errc::no_key, Errc::key_revoked.
  static Result<LayerSwap> prepare(const Parts& parts, const std::optional<kms::KeyId>& key);

  const std::optional<kms::KeyId>& key() const { return drawn_.record.key; }
  LayerId layer() const { return drawn_.id; }

  // A new image, whose record names layer(): puts the records of an empty layer into the transaction that makes it.
  void put_empty(catalog::WriteTxn& txn, Ino owner);

  // The image goes on over the content that it has, which readers of that content keep. With another key, or as the
  // disk inside, that is a replication of the image to itself.
  Status overlay(Image& image, const DiskInside& inside = {}, uid_t asker = 0) REQUIRES(image.mutex);
  // The image goes on with new, empty content, as the policy says, whose key was prepared.
  Status replace(Image& image, const names::Policy& policy) REQUIRES(image.mutex);

  // The image becomes a copy.
  struct Copied {
    Ino source;
    std::shared_ptr<blocks::Layer> base;  // its content
    DiskInside inside;
    std::uint64_t size = 0;   // of the copy, bytes
    bool from_base = false;   // all content up to `size` is the base's; else it is a hole at first
    uid_t asker = 0;
  };
  // Changes the image's record as the copy demands; an error ends the swap before anything happens.
  using Edit = std::function<Status(catalog::WriteTxn&, names::InodeRecord&)>;
  Status copy(Image& image, const Copied& copied, const Edit& edit) REQUIRES(image.mutex);

 private:
  using NewLayer = blocks::LayerRegistry::NewLayer;
  LayerSwap(const Parts& parts, NewLayer drawn) : parts_(parts), drawn_(std::move(drawn)) {}

  // What a swap comes to, once the new layer's base and size are known.
  struct Outcome {
    std::shared_ptr<blocks::Layer> top;
    std::shared_ptr<blocks::Layer> base;  // null: none
    bool transforms = false;
    bool keeps_old = false;  // the old top is the base
    bool in_pieces = false;  // more of the copy may follow
    std::optional<boot::BootProfile> profile;
    Event event;  // of an overlay with the same content and key, and of empty content, nobody is told
  };
  Result<Outcome> open_over(const Image& image, std::shared_ptr<blocks::Layer> base, const DiskInside& inside,
                            std::uint64_t size, bool from_base) REQUIRES(image.mutex);
  Status commit(Image& image, Outcome outcome, const Edit& edit) REQUIRES(image.mutex);
  Status put_transformation(catalog::WriteTxn& txn, Ino ino, const Outcome& outcome, names::InodeRecord& inode);
  // Made outside a transaction: the key service is asked.
  Event event_of(Ino target, Ino source, const Outcome& outcome, uid_t asker) const;
  std::optional<boot::BootProfile> profile_to_carry(const Outcome& outcome) const;

  Parts parts_;
  NewLayer drawn_;
};

}  // namespace rekeyfs::images
