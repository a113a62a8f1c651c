#include "engine/blocks/block_entry.h"

#include "engine/catalog/epochs.h"

namespace rekeyfs::blocks {
namespace {

template <std::size_t N>
void store(std::byte* out, std::uint64_t value) {
  for (std::size_t i = 0; i < N; ++i) out[i] = static_cast<std::byte>(value >> (8 * i));
}
template <std::size_t N>
std::uint64_t load(const std::byte* in) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < N; ++i) value |= std::to_integer<std::uint64_t>(in[i]) << (8 * i);
  return value;
}

// The code that assigns these numbers stops before they exceed the fields of an entry.
static_assert(kSlotEnd == Slot{1} << (8 * 5));
static_assert(catalog::kLastEpoch.value() < 1u << (8 * 3));
static_assert(catalog::kCounterEnd == std::uint64_t{1} << (8 * 5));

}  // namespace

void encode_entry(const BlockEntry& entry, std::span<std::byte, kEntrySize> out) {
  out[0] = static_cast<std::byte>(entry.state);
  store<2>(&out[1], entry.state == BlockState::data ? entry.stored_length - 1 : 0);
  store<5>(&out[3], entry.slot);
  store<3>(&out[8], entry.epoch.value());
  store<5>(&out[11], entry.counter);
  std::memcpy(&out[16], entry.tag.data(), entry.tag.size());
}

Result<BlockEntry> decode_entry(std::span<const std::byte, kEntrySize> in) {
  BlockEntry entry;
  entry.state = static_cast<BlockState>(in[0]);
  if (entry.state > BlockState::data && entry.state != BlockState::lost)
    return fail(Errc::corrupt, "a block's entry has an unknown state");
  if (entry.state != BlockState::data) return entry;
  entry.stored_length = static_cast<std::uint32_t>(load<2>(&in[1])) + 1;
  entry.slot = load<5>(&in[3]);
  entry.epoch = EpochId{static_cast<std::uint32_t>(load<3>(&in[8]))};
  entry.counter = load<5>(&in[11]);
  std::memcpy(entry.tag.data(), &in[16], entry.tag.size());
  return entry;
}

}  // namespace rekeyfs::blocks
