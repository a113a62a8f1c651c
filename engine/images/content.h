// Content: reading and changing what is in an image, and which layer a change goes to. Thread-safe.
#pragma once

#include <functional>

#include "engine/base/bytes.h"
#include "engine/images/boots.h"
#include "engine/images/layer_swap.h"
#include "engine/replication/copy_on_read.h"
#include "engine/replication/readers.h"
#include "engine/types/content.h"

namespace rekeyfs::images {

class Content {
 public:
  // All outlive it.
  Content(const LayerSwap::Parts& swaps, replication::CopyOnRead& copy_on_read, replication::Readers& readers, Observer& observer)
      : swaps_(swaps), copy_on_read_(copy_on_read), readers_(readers), observer_(observer) {}

  // `boot`, if not null, is told of the read.
  Result<std::size_t> read(Image& image, std::uint64_t offset, ByteSpan out, Boots::Part* boot = nullptr);
  Status write(Image& image, std::uint64_t offset, ByteView bytes);
  Status resize(Image& image, std::uint64_t size);
  Status allocate(Image& image, Allocate what, bool keep_size, std::uint64_t offset, std::uint64_t size);
  Result<std::uint64_t> seek(Image& image, std::uint64_t offset, Seek what) const;

  // Runs `change` on a top layer that may be changed, with Image::mutex held shared.
  using Change = std::function<Status(const std::shared_ptr<blocks::Layer>&)>;
  Status with_writable(Image& image, const Change& change);
  // What the image's O_TRUNC waits for takes place now, if `ticket` is still waiting.
  Status finish_truncation(Image& image, const Truncations::Ticket& ticket);

  // The policy that an image opened with O_TRUNC goes on with: that of its directory.
  Result<names::Policy> policy_of_new_content(const Image& image) const REQUIRES_SHARED(image.mutex);
  // For a change by a user.
  static blocks::Touch touch(Image& image);

 private:
  // What has to happen before the top layer may be changed.
  struct Obstacle {
    enum class Kind { none, truncation, sharing } kind = Kind::none;
    names::Policy policy;  // of the new content; its key is that of the new layer
  };
  Result<bool> empty(Image& image) EXCLUDES(image.mutex);
  Result<Obstacle> obstacle_of(const Image& image) const REQUIRES_SHARED(image.mutex);
  // Does nothing if it is another obstacle by now: the caller looks again.
  Status remove(const Obstacle& obstacle, LayerSwap& swap, Image& image) REQUIRES(image.mutex);
  // The policy that makes what the image is already.
  static names::Policy policy_behind(const Image& image, const names::InodeRecord& inode) REQUIRES_SHARED(image.mutex);
  static std::shared_ptr<blocks::Layer> readable(const Image& image) EXCLUDES(image.mutex);  // null: truncated

  const LayerSwap::Parts swaps_;
  replication::CopyOnRead& copy_on_read_;
  replication::Readers& readers_;
  Observer& observer_;
};

}  // namespace rekeyfs::images
