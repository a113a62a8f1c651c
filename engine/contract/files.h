// Files: the content of images, through open files. Thread-safe, also for one OpenFile; no function throws.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "engine/base/bytes.h"
#include "engine/base/ids.h"
#include "engine/base/result.h"
#include "engine/types/attributes.h"
#include "engine/types/boot_reads.h"
#include "engine/types/caller.h"
#include "engine/types/content.h"
#include "engine/types/open_file.h"
#include "engine/types/replication_plan.h"
#include "engine/types/target_choice.h"
#include "engine/types/transform_rate.h"

namespace rekeyfs {

class Files {
 public:
  virtual ~Files() = default;

  struct Created {
    Attributes attributes;
    OpenFilePtr file;
  };
  // Creates a regular file that must not exist (mknod + open in one). `flags` are those of open(2).
  virtual Result<Created> create(Ino parent, std::string_view name, mode_t mode, int flags, const Caller& caller) = 0;
  // Uses only the access mode and O_TRUNC of `flags`; the kernel handles O_APPEND. With O_RDWR, the kernel may also
  // delay changes (shared mapping).
  virtual Result<OpenFilePtr> open(Ino ino, int flags, const Caller& caller) = 0;

  // Returns the number of bytes read: less than requested only at the end.
  virtual Result<std::size_t> read(OpenFile& file, std::uint64_t offset, ByteSpan out) = 0;
  virtual Result<std::size_t> write(OpenFile& file, std::uint64_t offset, ByteView bytes) = 0;
  virtual Status allocate(OpenFile& file, Allocate what, bool keep_size, std::uint64_t offset, std::uint64_t size) = 0;
  virtual Result<std::uint64_t> seek(OpenFile& file, std::uint64_t offset, Seek what) = 0;
  // Replicates if possible (a whole image to a new one, at once or in pieces, O(1)); otherwise copies bytes.
  virtual Result<std::uint64_t> copy_range(OpenFile& in, std::uint64_t offset_in, OpenFile& out, std::uint64_t offset_out,
                                           std::uint64_t size, const Caller& caller) = 0;
  virtual Status flush(OpenFile& file) = 0;  // close(2) of one of the handle's descriptors
  virtual Status sync(OpenFile& file) = 0;

  // Gives an image that this handle created, and that has no content yet, a key other than that of its directory, or
  // makes it a disk; its permissions are then as if it had been created that way. Errc::not_permitted if it has
  // content. A key that the caller may not use is a refusal: all later changes through the handle are refused, and its
  // flush deletes the image.
  // A handle that opened an existing image with O_TRUNC may choose plain before it writes, if the caller is the owner of
  // the image or an operator. Any other choice through it is a refusal, and the image keeps its content.
  virtual Status choose_target(OpenFile& file, const TargetChoice& choice, const Caller& caller) = 0;
  // Why changes through this handle are refused; nullopt if they are not.
  virtual std::optional<Error> refusal_of(OpenFile& file) = 0;
  // Neither changes anything. transform_rate() takes up to 0.1 s.
  virtual Result<ReplicationPlan> plan_replication(OpenFile& source, Ino directory, const TargetChoice& choice, const Caller& caller) = 0;
  virtual TransformRate transform_rate(OpenFile& source) = 0;

  // nullopt: the image was never booted. Errc::invalid: it is not an image.
  virtual Result<std::optional<BootReads>> boot_reads(Ino image) = 0;
  // Deletes the boot profile of an image, so that the next boot is recorded. Clones share the profile with their
  // source, whose owner owns it; only that owner and root may clear it. Errc::no_attribute if there is none.
  virtual Status clear_boot_profile(Ino image, const Caller& caller) = 0;
};

}  // namespace rekeyfs
