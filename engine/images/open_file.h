// OpenFile: one handle of an image. What it holds for its time is held by members, which end with it.
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

// While it lives, the image is `creating`: it was written through a handle that has not been flushed since. The two
// seconds after which the image is examined begin when it ends.
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

// While it lives, the kernel may hold changes to the image back (a shared mapping, a write-back cache): what readers see
// may differ from what is stored.
class HeldBack {
 public:
  explicit HeldBack(Image& image) : image_(image) { image_.holding_back.fetch_add(1); }
  ~HeldBack() { image_.holding_back.fetch_sub(1); }
  HeldBack(const HeldBack&) = delete;
  HeldBack& operator=(const HeldBack&) = delete;

 private:
  Image& image_;
};

// How an image came to be: through this handle, under this name.
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

  // The handle stays refused: each later change through it answers this.
  void refuse(const Error& error) EXCLUDES(mutex);
  std::optional<Error> refusal() const EXCLUDES(mutex);

  const images::ImageHold hold;  // first, so that it ends last: the others are about the image
  const uid_t uid;               // who opened it
  // Set before others see the handle.
  std::optional<images::Creation> creation;
  std::optional<images::HeldBack> held_back;     // of a handle that both reads and writes
  std::unique_ptr<images::Boots::Part> boot;  // null: no boot

  std::atomic<bool> fast_create{false};    // what it makes is to be a disk as a VM sees it
  images::Truncations::Ticket truncation;  // guarded by Image::mutex; FLUSH of this handle, and of no other, makes it final

  // A descriptor may be used by several threads at once.
  mutable Mutex mutex;
  std::optional<images::Unflushed> unflushed GUARDED_BY(mutex);
  std::optional<Error> refused GUARDED_BY(mutex);
  std::optional<images::Stitch> stitch GUARDED_BY(mutex);
};

}  // namespace rekeyfs
