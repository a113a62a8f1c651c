// DiskView: the disk inside an image file, as the raw bytes that a virtual machine sees, read on demand by QEMU's block
// layer in a sandboxed process. The process can access the image's bytes and nothing else. Thread-safe.
//
//   raw disk  <-- DiskView <-- FormatReader (libnbd <- qemu-storage-daemon <- ImageServer) <-- image
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "engine/base/result.h"
#include "engine/formats/content.h"
#include "engine/formats/format.h"
#include "engine/formats/format_readers.h"

namespace rekeyfs::formats {

struct DiskFacts {
  std::uint64_t size;  // of the virtual disk, in bytes
};

// Asks the format reader for the image's format and disk size. Errc::wrong_medium, with the reason, for an image that
// is refused: a backing file, data in other files, encryption by its format, a damaged header, a disk larger than
// kLargestDisk. If the image cannot be read, that error; Errc::io if the format reader fails.
Result<DiskFacts> probe_disk(const std::shared_ptr<Content>& image, Format format, const Patience& patience = {});

// The disk of `size` bytes, as reported by probe_disk(), inside an image whose bytes do not change. Starts no process
// before the first read. If the process dies or hangs, reads fail with Errc::io in bounded time, and a later read
// starts another process after a pause. The process ends after some time without reads, when another view needs its
// place among `readers`, or with the view. If there is no place for it in time, a read fails with Errc::busy. The
// destructor waits for reads of the image in progress. `user` is the one for whom the disk is read; users take turns.
// `readers` and `user` must outlive the view.
std::shared_ptr<Content> open_disk(std::shared_ptr<Content> image, Format format, std::uint64_t size, FormatReaders& readers,
                                   const std::atomic<uid_t>& user, const Patience& patience = {});

}  // namespace rekeyfs::formats
