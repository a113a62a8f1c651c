// OpenFile: one open handle of an image. Resources of the handle are RAII members that end with it.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "engine/images/boots.h"
#include "engine/images/open_images.h"
#include "engine/images/stitch.h"

namespace rekeyfs {

namespace images {

// While it exists, the image is `creating`: it was written through a handle that was not flushed since. Its end starts
// the two seconds after which the image is examined.
class Unflushed {
 public:
  Unflushed(Image& image, Initializer& initializer) : image_(image), initializer_(initializer) { image_.unflushed.fetch_add(1); }
  ~Unflushed() {
    image_.unflushed.fetch_sub(1);
    initializer_.touched(image_.ino);
  }
  Unflushed(const Unflushed&) = delete;
  Unflushed& operator=(const Unflushed&) = delete;

 private:
  Image& image_;
  Initializer& initializer_;
};

// While it exists, the kernel may delay changes to the image (shared mapping, write-back cache), so readers may see
// other bytes than those stored.
class HeldBack {
 public:
  explicit HeldBack(Image& image) : image_(image) { image_.holding_back.fetch_add(1); }
  ~HeldBack() { image_.holding_back.fetch_sub(1); }
  HeldBack(const HeldBack&) = delete;
  HeldBack& operator=(const HeldBack&) = delete;

 private:
  Image& image_;
};

// Marks the handle that created the image, with the directory and the name used.
class Creation {
 public:
  Creation(Image& image, Ino directory, std::string_view under) : parent(directory), name(under), image_(image) {
    image_.creators.fetch_add(1);
  }
  ~Creation() { image_.creators.fetch_sub(1); }
  Creation(const Creation&) = delete;
  Creation& operator=(const Creation&) = delete;

  const Ino parent;
  const std::string name;

 private:
  Image& image_;
};

}  // namespace images

class OpenFile {
 public:
  OpenFile(images::ImageHold image_hold, uid_t opener) : hold(std::move(image_hold)), uid(opener) {}
  ~OpenFile();
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  images::Image& image() const { return *hold; }
  Ino ino() const { return hold->ino; }

  // Refuses all later changes through this handle: each fails with `error`.
  void refuse(const Error& error) EXCLUDES(mutex);
  std::optional<Error> refusal() const EXCLUDES(mutex);

  const images::ImageHold hold;  // declared first so that it is destroyed last: the other members refer to the image
  const uid_t uid;               // user who opened the handle
  // Set before the handle is published to other threads.
  std::optional<images::Creation> creation;
  std::optional<images::HeldBack> held_back;     // set if the handle both reads and writes
  std::unique_ptr<images::Boots::Part> boot;  // null: not a boot

  std::atomic<bool> fast_create{false};    // the created image must become the disk that a VM sees in it
  images::Truncations::Ticket truncation;  // guarded by Image::mutex; made final only by FLUSH of this handle

  // Several threads may use one descriptor at the same time.
  mutable Mutex mutex;
  std::optional<images::Unflushed> unflushed GUARDED_BY(mutex);
  std::optional<Error> refused GUARDED_BY(mutex);
  std::optional<images::Stitch> stitch GUARDED_BY(mutex);
  Ino declassified GUARDED_BY(mutex);  // image whose copy through this handle, from a key to plain, the audit log has
};

}  // namespace rekeyfs
