#include "fs/hot_content.h"

#include <algorithm>
#include <vector>

namespace rekeyfs::fs {
namespace {

constexpr std::size_t kPiece = 1 << 20;

std::uint64_t round_up(std::uint64_t bytes, std::uint64_t unit) { return (bytes + unit - 1) / unit * unit; }

struct Extent {
  std::uint64_t begin = 0, end = 0;
};

// The next extent of data at or after `offset`; empty at the end of the image.
Result<Extent> next_data(Engine& engine, OpenFile& image, std::uint64_t offset) {
  const auto begin = engine.files().seek(image, offset, Seek::data);
  if (!begin && begin.error().code == Errc::beyond_end) return Extent{};
  RK_TRY(begin);
  RK_TRY_ASSIGN(const std::uint64_t end, engine.files().seek(image, *begin, Seek::hole));
  return Extent{*begin, end};
}

Status for_all_data(Engine& engine, OpenFile& image, const std::function<Status(const Extent&)>& use) {
  for (std::uint64_t offset = 0;;) {
    RK_TRY_ASSIGN(const Extent extent, next_data(engine, image, offset));
    if (extent.end <= extent.begin) return {};
    RK_TRY(use(extent));
    offset = extent.end;
  }
}

}  // namespace

Result<std::uint64_t> memory_needed(Engine& engine, OpenFile& image, std::uint64_t size, std::uint64_t page) {
  constexpr std::uint64_t kSmall = HotMemory::kSmallPage;
  const std::uint64_t large_end = round_up(size, kSmall) / page * page;
  std::uint64_t bytes = 0, counted_to = 0;
  const auto count = [&](std::uint64_t begin, std::uint64_t end, std::uint64_t unit) {
    if (begin >= end) return;
    begin = std::max(begin / unit * unit, counted_to);
    counted_to = std::max(counted_to, round_up(end, unit));
    bytes += counted_to - std::min(begin, counted_to);
  };
  RK_TRY(for_all_data(engine, image, [&](const Extent& extent) -> Status {
    count(extent.begin, std::min(extent.end, large_end), page);
    count(std::max(extent.begin, large_end), extent.end, kSmall);
    return {};
  }));
  return bytes;
}

Status copy_content(Engine& engine, OpenFile& image, HotFile& out, const std::function<bool()>& goes_on) {
  std::vector<std::byte> buffer(kPiece);
  return for_all_data(engine, image, [&](const Extent& extent) -> Status {
    for (std::uint64_t offset = extent.begin; offset < extent.end;) {
      if (!goes_on()) return fail(Errc::busy, "the image is being changed");
      const ByteSpan piece(buffer.data(), std::min<std::uint64_t>(kPiece, extent.end - offset));
      RK_TRY_ASSIGN(const std::size_t got, engine.files().read(image, offset, piece));
      if (got == 0) return fail(Errc::busy, "the image became shorter");
      RK_TRY(out.write(offset, piece.first(got)));
      offset += got;
    }
    return {};
  });
}

}  // namespace rekeyfs::fs
