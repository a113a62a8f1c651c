// Copies: copy_file_range between images: what `cp` inside the mount calls, and what starts a replication.
//
// A copy to the same offset of a new image becomes a layer over the source's: O(1). The kernel asks for a large copy in
// pieces of at most 4 GiB - 4 KiB, other tools extent by extent; the pieces of one open are stitched into one replica of
// the source as it was at the first piece. Anything else is copied as bytes.
//
// With fast create the target is the disk that a VM sees in the source, whatever format that is a file of: the layer over
// the source reads it through the format. Thread-safe.
#pragma once

#include "engine/images/content.h"
#include "engine/images/fast_create.h"
#include "engine/images/image_status.h"
#include "engine/images/open_file.h"

namespace rekeyfs::images {

class Copies {
 public:
  // All outlive it.
  Copies(const LayerSwap::Parts& swaps, Content& content, const ImageStatus& status, Refusals& refusals, Observer& observer)
      : swaps_(swaps), content_(content), status_(status), refusals_(refusals), observer_(observer) {}

  // Bytes copied.
  Result<std::uint64_t> copy_range(OpenFile& in, std::uint64_t offset_in, OpenFile& out, std::uint64_t offset_out,
                                   std::uint64_t size, const Caller& caller);
  // A FLUSH of the target: no further piece is part of this copy.
  Status end(OpenFile& out);

  // The target's handle stays refused, with what the rule says; what its O_TRUNC was about to throw away stays.
  Error refuse(OpenFile& out, Event refusal);

  // Rules of replication. A full-ECS image leaves by being read and written only, whatever the target holds.
  static Status type_rule(const names::InodeRecord& from);
  Status state_rule(Ino ino, const names::InodeRecord& from, bool clones) const;

 private:
  struct Copy;
  Status check_type(const Copy& copy);
  Status enforce(const Copy& copy, const Status& rule);
  Status settle_terms(Copy& copy);
  Result<bool> start(Copy& copy);
  Result<bool> start_once(Copy& copy, const names::InodeRecord& from);
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
  Observer& observer_;
};

}  // namespace rekeyfs::images
