// BlockEntry: the state of one block. 32 bytes on disk (rekeyfs-format(5)):
//   state u8 | stored length - 1, u16 | slot u40 | epoch u24 | counter u40 | tag 16
#pragma once

#include <array>

#include "engine/base/bytes.h"
#include "engine/base/ids.h"
#include "engine/crypto/hash.h"

namespace rekeyfs::blocks {

inline constexpr std::uint32_t kBlockSize = 16384;  // of new layers; each layer records its own

enum class BlockState : std::uint8_t {  // numbers on disk
  hole = 0,  // zeros
  base = 1,  // same content as the base layer's block
  data = 2,  // in a slot of this layer
  lost = 4,  // its table page was damaged and repaired: reads fail until the block is rewritten
};

// A slot number in a layer's data files. A block's home slot has the block's index; later versions alternate between
// the home slot and spill slots, so that neither the last durable nor the last acknowledged version is overwritten.
using Slot = std::uint64_t;
inline constexpr Slot kSpillBit = Slot{1} << 39;
inline constexpr Slot kSlotEnd = kSpillBit << 1;

// A layer has at most as many blocks as there are home slots, and at most as many bytes as that many blocks of the
// largest size.
inline constexpr BlockIndex kBlockEnd = kSpillBit;
inline constexpr std::uint64_t kMaxContent = kBlockEnd << 16;

// Converts between byte offsets and indexes of blocks of 2^shift bytes.
struct BlockGrid {
  std::uint8_t shift;

  std::uint32_t block_size() const { return 1u << shift; }
  BlockIndex block_of(std::uint64_t offset) const { return offset >> shift; }
  std::uint64_t offset_of(BlockIndex block) const { return block << shift; }
  // Number of blocks that begin before `size`.
  BlockIndex end_block(std::uint64_t size) const { return (size + block_size() - 1) >> shift; }
};

struct BlockEntry {
  BlockState state = BlockState::hole;
  std::uint32_t stored_length = 0;  // 1 to 65536 bytes; the rest of the block is zeros
  Slot slot = 0;
  EpochId epoch;              // mount that sealed the block
  std::uint64_t counter = 0;  // nonce within that mount
  crypto::Tag tag{};

  static BlockEntry of(BlockState state) {
    BlockEntry entry;
    entry.state = state;
    return entry;
  }
  friend bool operator==(const BlockEntry&, const BlockEntry&) = default;
};

inline constexpr std::size_t kEntrySize = 32;
void encode_entry(const BlockEntry& entry, std::span<std::byte, kEntrySize> out);
// Errc::corrupt for an unknown state.
Result<BlockEntry> decode_entry(std::span<const std::byte, kEntrySize> in);

}  // namespace rekeyfs::blocks
