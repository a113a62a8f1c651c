// Files: the content of images, through open files. Thread-safe, also for one OpenFile; nothing throws.
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
  // A regular file that does not exist yet (mknod + open in one). `flags` are those of open(2).
  virtual Result<Created> create(Ino parent, std::string_view name, mode_t mode, int flags, const Caller& caller) = 0;
  // Of `flags` the access mode and O_TRUNC count; O_APPEND is the business of the kernel. O_RDWR also says that the
  // kernel may hold changes back (a shared mapping).
  virtual Result<OpenFilePtr> open(Ino ino, int flags, const Caller& caller) = 0;

  // Bytes read: fewer than asked for only at the end.
  virtual Result<std::size_t> read(OpenFile& file, std::uint64_t offset, ByteSpan out) = 0;
  virtual Result<std::size_t> write(OpenFile& file, std::uint64_t offset, ByteView bytes) = 0;
  virtual Status allocate(OpenFile& file, Allocate what, bool keep_size, std::uint64_t offset, std::uint64_t size) = 0;
  virtual Result<std::uint64_t> seek(OpenFile& file, std::uint64_t offset, Seek what) = 0;
  // Replicates where it can (a whole image into a new one, in pieces or at once, O(1)), else copies bytes.
  virtual Result<std::uint64_t> copy_range(OpenFile& in, std::uint64_t offset_in, OpenFile& out, std::uint64_t offset_out,
                                           std::uint64_t size, const Caller& caller) = 0;
  virtual Status flush(OpenFile& file) = 0;  // close(2) of one of its descriptors
  virtual Status sync(OpenFile& file) = 0;

  // Gives an image that this handle created, and that has no content yet, another key than the policy of its directory,
  // or makes it a disk; the permissions are then as if it had been created so. Errc::not_permitted once it has content.
  // A key that cannot be used is a refusal: the handle stays refused, and the image goes at its flush.
  virtual Status choose_target(OpenFile& file, const TargetChoice& choice, const Caller& caller) = 0;
  // Why changes through this handle are refused; nothing if they are not.
  virtual std::optional<Error> refusal_of(OpenFile& file) = 0;
  // Both change nothing. The second takes up to a tenth of a second.
  virtual Result<ReplicationPlan> plan_replication(OpenFile& source, Ino directory, const TargetChoice& choice, const Caller& caller) = 0;
  virtual TransformRate transform_rate(OpenFile& source) = 0;

  // Absent: nobody has booted from the image. Errc::invalid: it is no image.
  virtual Result<std::optional<BootReads>> boot_reads(Ino image) = 0;
  // Forgets what the first boot from an image read: the next boot is recorded. Clones share it with their source, to
  // whose owner it belongs; only that owner and root may clear it. Errc::no_attribute if there is none.
  virtual Status clear_boot_profile(Ino image, const Caller& caller) = 0;
};

}  // namespace rekeyfs
