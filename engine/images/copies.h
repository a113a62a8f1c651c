// Copies: copy_file_range between images. `cp` inside the mount calls it; it also starts replications.
//
// A copy to the same offset of a new image becomes a layer over the source's layer, in O(1). The kernel splits a large
// copy into pieces of at most 4 GiB - 4 KiB; other tools copy extent by extent. All pieces copied through one handle
// become one replica of the source as it was at the first piece. Any other copy is done byte by byte.
//
// A copy from a key to a plain target declassifies the content, whichever way it is made; that is a right of its own.
//
// With fast create the target becomes the disk that a VM sees in the source, whatever the source's format: the layer
// over the source reads it through a format reader. Thread-safe.
#pragma once

#include "engine/images/content.h"
#include "engine/images/fast_create.h"
#include "engine/images/image_status.h"
#include "engine/images/open_file.h"

namespace rekeyfs::images {

class Copies {
 public:
  // All arguments must outlive it.
  Copies(const LayerSwap::Parts& swaps, Content& content, const ImageStatus& status, Refusals& refusals,
         quota::QuotaBook& quotas, Observer& observer)
      : swaps_(swaps), content_(content), status_(status), refusals_(refusals), quotas_(quotas), observer_(observer) {}

  // Returns the number of bytes copied.
  Result<std::uint64_t> copy_range(OpenFile& in, std::uint64_t offset_in, OpenFile& out, std::uint64_t offset_out,
                                   std::uint64_t size, const Caller& caller);
  // Called at a FLUSH of the target: later pieces do not belong to this copy.
  Status end(OpenFile& out);

  // Refuses all later changes through the target's handle, with the error that the rule gives. A pending O_TRUNC of the
  // handle is withdrawn, so the old content stays.
  Error refuse(OpenFile& out, Event refusal);

  // The rules of replication. A full-ECS image may only be copied by read and write, whatever the target's policy is.
  static Status type_rule(const names::InodeRecord& from);
  Status state_rule(Ino ino, const names::InodeRecord& from, bool clones) const;

 private:
  struct Copy;
  Status check_type(const Copy& copy);
  Status find_keys(Copy& copy) const;
  static bool declassifies(const Copy& copy);
  Status check_declassification(const Copy& copy);
  Event declassification(const Copy& copy) const;
  Status record_declassification(const Copy& copy);
  Status enforce(const Copy& copy, const Status& rule);
  Status settle_terms(Copy& copy);
  Result<bool> start(Copy& copy);
  Result<bool> start_once(Copy& copy, const names::InodeRecord& from);
  // Charges what the replica is going to store. Quotas that it would exceed refuse the copy.
  Status charge(const Copy& copy, Stitch& stitch);
  Result<bool> attach(Copy& copy, const names::InodeRecord& from, Stitch& stitch);
  Result<bool> put_over(Image& image, Copy& copy, const names::InodeRecord& from, Stitch& stitch, LayerSwap& swap)
      REQUIRES(image.mutex);
  Status go_on(Copy& copy, const Stitch& stitch);
  Status take_findings(Image& image, const Stitch& stitch);
  Status copy_bytes(const Copy& copy);

  const LayerSwap::Parts swaps_;
  Content& content_;
  const ImageStatus& status_;
  Refusals& refusals_;
  quota::QuotaBook& quotas_;
  Observer& observer_;
};

}  // namespace rekeyfs::images
