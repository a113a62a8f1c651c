#include "engine/blocks/layer_flush.h"

#include <chrono>

namespace rekeyfs::blocks {
namespace {

// Number of slots in limbo above which writers wait: 128 MiB in 16 KiB blocks.
constexpr std::uint64_t kMaxLimbo = 8192;
constexpr auto kMaxWait = std::chrono::milliseconds(50);  // writers continue even if the flush fails

}  // namespace

Result<LayerFlush::Work> LayerFlush::begin() {
  RK_TRY_ASSIGN(BlockCore::Snapshot snapshot, blocks_.begin_flush());
  return Work{std::move(snapshot.pages), snapshot.record.encode()};
}

void LayerFlush::end(bool committed, catalog::SegmentNumber first_segment) {
  if (!committed) return blocks_.flush_failed();
  blocks_.flush_committed();
  blocks_.give_back(first_segment, [this] { relieved_.notify_all(); });
}

void LayerFlush::wait_for_relief() {
  if (blocks_.pressure().limbo_slots <= kMaxLimbo) return;
  Lock lock(relief_);
  relieved_.wait_for(relief_, kMaxWait);
}

}  // namespace rekeyfs::blocks
