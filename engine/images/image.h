// Image: what the open handles of one image share; OpenFile: one of those handles.
#pragma once

#include <atomic>
#include <memory>
#include <optional>

#include "engine/base/mutex.h"
#include "engine/blocks/layer.h"
#include "engine/boot/recording.h"
#include "engine/formats/format.h"
#include "engine/namespace/inode_record.h"
#include "engine/types/open_file.h"

namespace rekeyfs {

namespace images {

class Images;

struct Image {
  explicit Image(Ino number) : ino(number) {}

  const Ino ino;
  // Shared by those who change content, exclusive for those who change which layer it is in.
  mutable SharedMutex mutex;
  std::shared_ptr<blocks::Layer> top GUARDED_BY(mutex);
  // Opened with O_TRUNC: reads as empty, but keeps its content until the first change or FLUSH, for a refusal
  // restores it.
  bool truncating GUARDED_BY(mutex) = false;
  // Handles that have written since their last FLUSH; while there are any, the image is `creating`.
  std::atomic<int> unflushed{0};
  // How often the content was changed by others than the pieces of a copy.
  std::atomic<std::uint64_t> changes{0};
  std::atomic<bool> lost_sharing{false};  // its permissions, as the kernel has them, are wrong
  std::atomic<int> creators{0};  // handles that made it and are still open

  // Guarded by Images::opening().
  unsigned opens = 0;
  bool unlinked = false;
  unsigned machines = 0;  // of the opens, those as a virtual machine's disk
  std::shared_ptr<boot::Recording> recording;  // of what these read, if it is recorded
};

// What fast create found in an image: the disk in a file of that format, and its size; raw: the file is the disk.
struct DiskInside {
  formats::Format format = formats::Format::raw;
  std::uint64_t size = 0;
  bool is_wrapped() const { return format != formats::Format::raw; }
};

// A copy that arrives in pieces: all read the source as it was at the first one.
struct Stitch {
  Ino source;
  std::shared_ptr<blocks::Layer> base;
  std::shared_ptr<const blocks::BaseRef> held;  // on the base
  DiskInside inside;  // if it is wrapped, the first piece brings all of the disk, and the others nothing
  std::optional<names::Findings> findings;  // about the base's content
  std::uint64_t changes = 0;                // Image::changes of the target when it began
  std::uint64_t copied = 0;                 // bytes from the start on, without a gap
};

}  // namespace images

class OpenFile {
 public:
  OpenFile(images::Images& its_owner, std::shared_ptr<images::Image> its_image) : owner(its_owner), image(std::move(its_image)) {}

  images::Images& owner;
  const std::shared_ptr<images::Image> image;
  uid_t uid = 0;           // who opened it
  bool truncates = false;  // opened with O_TRUNC: its FLUSH, and nobody else's, makes that final
  bool created = false;    // by this open, under the name below
  std::atomic<bool> fast_create{false};  // what it creates is to be a disk as a VM sees it
  Ino parent;
  std::string name;
  bool is_machine = false;  // opened as a virtual machine's disk
  std::shared_ptr<boot::Recording> recording;  // the image's, of what is read through this

  // A descriptor may be used by several threads at once.
  Mutex mutex;
  bool unflushed GUARDED_BY(mutex) = false;
  std::optional<Error> refused GUARDED_BY(mutex);  // what every later change through this handle answers
  std::optional<images::Stitch> stitch GUARDED_BY(mutex);
};

}  // namespace rekeyfs
