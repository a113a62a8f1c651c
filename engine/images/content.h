// Content: reads and changes the content of images, and chooses the layer that a change goes to. Thread-safe.
#pragma once

#include <functional>

#include "engine/base/bytes.h"
#include "engine/images/boots.h"
#include "engine/images/layer_swap.h"
#include "engine/quota/quota_book.h"
#include "engine/replication/copy_on_read.h"
#include "engine/replication/readers.h"
#include "engine/types/content.h"

namespace rekeyfs::images {

class Content {
 public:
  // All arguments must outlive it.
  Content(const LayerSwap::Parts& swaps, replication::CopyOnRead& copy_on_read, replication::Readers& readers,
          quota::QuotaBook& quotas, Observer& observer)
      : swaps_(swaps), copy_on_read_(copy_on_read), readers_(readers), quotas_(quotas), observer_(observer) {}

  // Reports the read to `boot` if not null.
  Result<std::size_t> read(Image& image, std::uint64_t offset, ByteSpan out, Boots::Part* boot = nullptr);
  Status write(Image& image, std::uint64_t offset, ByteView bytes);
  Status resize(Image& image, std::uint64_t size);
  Status allocate(Image& image, Allocate what, bool keep_size, std::uint64_t offset, std::uint64_t size);
  Result<std::uint64_t> seek(Image& image, std::uint64_t offset, Seek what) const;

  // Calls `change` with a top layer that may be changed, while holding Image::mutex shared.
  using Change = std::function<Status(const std::shared_ptr<blocks::Layer>&)>;
  Status with_writable(Image& image, const Change& change);
  // Applies the image's pending O_TRUNC now if `ticket` still waits for it.
  Status finish_truncation(Image& image, const Truncations::Ticket& ticket);

  // The policy of an image's new content after O_TRUNC: that of its directory. If that is plain, encrypted content keeps
  // its key, unless the owner of the image said that the new content is plain.
  Result<names::Policy> policy_of_new_content(const Image& image) const REQUIRES_SHARED(image.mutex);
  // The Touch of a change made by a user.
  static blocks::Touch touch(Image& image);

 private:
  // A reason why the top layer cannot be changed yet.
  struct Obstacle {
    enum class Kind { none, truncation, sharing } kind = Kind::none;
    names::Policy policy;  // policy of the new content; its key is the new layer's key
  };
  // Charges what a change of the range adds to the layer. Errc::over_quota.
  Result<quota::Charge> charge(Image& image, blocks::Layer& layer, std::uint64_t offset, std::uint64_t size);
  Status promise(Image& image, blocks::Layer& layer, std::uint64_t offset, std::uint64_t size);
  Result<bool> empty(Image& image) EXCLUDES(image.mutex);
  Result<Obstacle> obstacle_of(const Image& image) const REQUIRES_SHARED(image.mutex);
  // Does nothing if the obstacle has changed in the meantime; the caller checks again.
  Status remove(const Obstacle& obstacle, Image& image) EXCLUDES(image.mutex);
  // The policy that corresponds to the image's current state.
  static names::Policy policy_behind(const Image& image, const names::InodeRecord& inode) REQUIRES_SHARED(image.mutex);
  static std::shared_ptr<blocks::Layer> readable(const Image& image) EXCLUDES(image.mutex);  // null: truncated

  const LayerSwap::Parts swaps_;
  replication::CopyOnRead& copy_on_read_;
  replication::Readers& readers_;
  quota::QuotaBook& quotas_;
  Observer& observer_;
};

}  // namespace rekeyfs::images
