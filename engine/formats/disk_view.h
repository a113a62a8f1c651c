// The disk inside an image file of a foreign format, as the raw bytes a virtual machine sees, read on demand by QEMU's
// block layer in a sandboxed process that gets the image's bytes and nothing else. Thread-safe.
//
//   raw disk  <-- DiskView <-- FormatReader (libnbd <- qemu-storage-daemon <- ImageServer) <-- image
#pragma once

#include <cstdint>
#include <memory>

#include "engine/base/result.h"
#include "engine/formats/content.h"
#include "engine/formats/format.h"
#include "engine/formats/format_readers.h"

namespace rekeyfs::formats {

struct DiskFacts {
  std::uint64_t size;  // bytes of the virtual disk
};

// Asks the format reader what the image is. Errc::wrong_medium, with the reason, for what is refused: a backing file,
// data in other files, encryption inside, a damaged header, a disk larger than kLargestDisk. Where the image cannot be
// read, its error; Errc::io where the format reader fails.
Result<DiskFacts> probe_disk(const std::shared_ptr<Content>& image, Format format, const Patience& patience = {});

// The disk of `size` bytes, as probe_disk() told, inside an image whose bytes do not change. Starts no process before
// the first read. A process that died or hangs makes reads fail with Errc::io in bounded time; a later read starts
// another one, after a pause. It ends when nobody has read for some time, or others need its place among `readers`, which
// outlive the view, and with the view, which waits for reads of the image that are under way.
std::shared_ptr<Content> open_disk(std::shared_ptr<Content> image, Format format, std::uint64_t size, FormatReaders& readers,
                                   const Patience& patience = {});

}  // namespace rekeyfs::formats
