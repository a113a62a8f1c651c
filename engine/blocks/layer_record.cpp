#include "engine/blocks/layer_record.h"

#include <utility>

namespace rekeyfs::blocks {

namespace {

// A field that version 1 of the record has not; absent if it has its usual value. Numbers on disk, never reused.
constexpr std::uint8_t kPromised = 1;  // ""

}  // namespace

LayerId LayerRecord::take_base() {
  base_format = formats::Format::raw;
  disk_size = 0;
  return std::exchange(base, LayerId{});
}

std::string LayerRecord::encode() const {
  Writer out;
  out.put(static_cast<std::uint8_t>(suite)).put(block_shift).put(base.value());
  out.put(static_cast<std::uint8_t>(base_format));
  if (base_format != formats::Format::raw) out.put(disk_size);
  out.put(owner.value());
  out.put(static_cast<std::uint8_t>(key.has_value()));
  if (key) out.put_raw(*key).put(data_key.version).put_string(data_key.bytes);
  if (promised) LaterFields::put_field(out, kPromised, "");
  later.put(out);
  return out.take();
}

Result<LayerRecord> LayerRecord::decode(std::string_view bytes) {
  RK_TRY(check_layout(bytes));
  Reader in(bytes);
  LayerRecord record;
  const std::uint8_t suite = in.get<std::uint8_t>();
  record.suite = static_cast<crypto::Suite>(suite);
  record.block_shift = in.get<std::uint8_t>();
  record.base = LayerId{in.get<std::uint64_t>()};
  RK_TRY_ASSIGN(record.base_format, formats::format_from_number(in.get<std::uint8_t>()));
  if (record.base_format != formats::Format::raw) record.disk_size = in.get<std::uint64_t>();
  record.owner = Ino{in.get<std::uint64_t>()};
  if (in.get_flag()) {
    in.get_into(record.key.emplace());
    record.data_key.version = in.get<std::uint32_t>();
    record.data_key.bytes = in.get_string();
  }
  record.later.get(in);
  record.promised = record.later.take(kPromised).has_value();
  const bool sane = crypto::is_known_suite(suite) && record.block_shift >= 12 && record.block_shift <= 16 &&
                    (record.base || record.base_format == formats::Format::raw) && record.disk_size <= formats::kLargestDisk;
  if (!in.finished() || !sane) return fail(Errc::corrupt, "a layer's record is malformed");
  return record;
}

std::string LayerTableRecord::encode() const {
  Writer out;
  out.put(size).put(static_cast<std::uint8_t>(root.state)).put(root.levels).put(root.position).put_raw(root.mac);
  out.put(stored).put(next_spill).put(filled);
  return out.take();
}

Result<LayerTableRecord> LayerTableRecord::decode(std::string_view bytes) {
  Reader in(bytes);
  LayerTableRecord record;
  record.size = in.get<std::uint64_t>();
  record.root.state = static_cast<TableRoot::State>(in.get<std::uint8_t>());
  record.root.levels = in.get<std::uint8_t>();
  record.root.position = in.get<std::uint64_t>();
  in.get_into(record.root.mac);
  record.stored = in.get<std::uint64_t>();
  record.next_spill = in.get<std::uint64_t>();
  record.filled = in.get<std::uint64_t>();
  const bool known = record.root.state == TableRoot::State::hole || record.root.state == TableRoot::State::base ||
                     record.root.state == TableRoot::State::page || record.root.state == TableRoot::State::lost;
  if (!in.finished() || !known || record.root.levels < 1 || record.root.levels > 7 ||
      record.size > kMaxContent || record.next_spill > kSpillBit)
    return fail(Errc::corrupt, "a layer's table record is malformed");
  return record;
}

std::string LayerChange::encode() const {
  Writer out;
  out.put(static_cast<std::uint8_t>(kind)).put(size).put(first);
  if (kind == Kind::range) {
    out.put(end).put(static_cast<std::uint8_t>(state));
    return out.take();
  }
  out.put(static_cast<std::uint32_t>(entries.size()));
  std::array<std::byte, kEntrySize> raw;
  for (const BlockEntry& entry : entries) {
    encode_entry(entry, raw);
    out.put_raw(raw);
  }
  return out.take();
}

Result<LayerChange> LayerChange::decode(std::string_view bytes) {
  const Error malformed{Errc::corrupt, "a journal record's change of a layer is malformed"};
  Reader in(bytes);
  LayerChange change;
  change.kind = static_cast<Kind>(in.get<std::uint8_t>());
  change.size = in.get<std::uint64_t>();
  change.first = in.get<std::uint64_t>();
  if (change.size > kMaxContent) return fail(malformed);
  if (change.kind == Kind::range) {
    change.end = in.get<std::uint64_t>();
    change.state = static_cast<BlockState>(in.get<std::uint8_t>());
    const bool holes = change.state == BlockState::hole;  // to any end
    const bool from_base = change.state == BlockState::base && change.end <= kBlockEnd;
    if (!in.finished() || (!holes && !from_base)) return fail(malformed);
    return change;
  }
  const std::uint32_t count = in.get<std::uint32_t>();
  if (change.kind != Kind::blocks || in.left() != std::size_t{count} * kEntrySize) return fail(malformed);
  if (change.first > kBlockEnd || count > kBlockEnd - change.first) return fail(malformed);
  change.entries.reserve(count);
  for (std::uint32_t i = 0; i < count; ++i) {
    RK_TRY_ASSIGN(BlockEntry entry, decode_entry(in.get_raw(kEntrySize).first<kEntrySize>()));
    change.entries.push_back(entry);
  }
  return change;
}

}  // namespace rekeyfs::blocks
