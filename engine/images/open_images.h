// OpenImages: the registry of open images; also deletes images that have lost their last name.
//
// An image is open while an ImageHold exists. An image that is unlinked while open is deleted with its last hold or, if
// the process ends first, at the next mount. Thread-safe. Lock order, outermost first: opening(), Image::mutex (by
// ino), layer, catalog.
#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include "engine/images/image.h"
#include "engine/images/initializer.h"
#include "engine/namespace/tree.h"
#include "engine/quota/quota_book.h"
#include "engine/replication/filler.h"
#include "engine/store/store.h"

namespace rekeyfs::images {

class OpenImages;

// One reason to keep an image open. OpenImages::open() returns it; the reason ends with the object.
class ImageHold {
 public:
  ImageHold(ImageHold&& other) noexcept : owner_(other.owner_), image_(std::move(other.image_)) {}
  ImageHold& operator=(ImageHold&&) = delete;
  ~ImageHold();

  Image& operator*() const { return *image_; }
  Image* operator->() const { return image_.get(); }

 private:
  friend class OpenImages;
  ImageHold(OpenImages& owner, std::shared_ptr<Image> image) : owner_(&owner), image_(std::move(image)) {}

  OpenImages* owner_;
  std::shared_ptr<Image> image_;  // null: moved from
};

class OpenImages final : public names::ImageReaper {
 public:
  // All arguments must outlive it.
  OpenImages(store::Store& store, names::Tree& tree, replication::Filler& filler, Initializer& initializer, quota::QuotaBook& quotas)
      : store_(store), tree_(tree), filler_(filler), initializer_(initializer), quotas_(quotas) {}

  // Deletes images that were unlinked but still open when the previous process ended. Call before serving requests.
  Status reap_orphans();

  Result<ImageHold> open(Ino ino) EXCLUDES(opening_);
  std::shared_ptr<Image> find(Ino ino) const EXCLUDES(opening_);  // null if it is not open; opens nothing
  bool is_open_elsewhere(const ImageHold& hold) const EXCLUDES(opening_);  // whether another hold exists

  Mutex& opening() override { return opening_; }
  Status image_unlinked(catalog::WriteTxn& txn, Ino ino, names::InodeRecord& inode) override;
  void unlink_committed(bool committed) override;

 private:
  friend class ImageHold;
  using Released = std::vector<blocks::LayerRegistry::Released>;
  struct Entry {
    std::shared_ptr<Image> image;
    unsigned holds = 0;
    bool unlinked = false;
  };
  void release(Ino ino) noexcept EXCLUDES(opening_);
  Result<std::shared_ptr<Image>> load(Ino ino) const;
  Status reap(catalog::WriteTxn& txn, Ino ino, Released& released);
  Status reap_orphan(Ino ino);
  void reap_now(Ino ino);
  void forget(Ino ino, const Released& released);

  store::Store& store_;
  names::Tree& tree_;
  replication::Filler& filler_;
  Initializer& initializer_;
  quota::QuotaBook& quotas_;

  mutable Mutex opening_;
  std::unordered_map<Ino, Entry> open_ GUARDED_BY(opening_);
  Released released_ GUARDED_BY(opening_);  // filled by the current unlinking transaction
  Ino unlinking_ GUARDED_BY(opening_);
};

}  // namespace rekeyfs::images
