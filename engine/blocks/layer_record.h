// What the catalog and the journal hold of a layer, and its bytes.
#pragma once

#include <optional>
#include <variant>

#include "engine/base/later_fields.h"
#include "engine/blocks/block_table.h"
#include "engine/crypto/block_cipher.h"
#include "engine/formats/format.h"
#include "engine/kms/key_info.h"

namespace rekeyfs::blocks {

// Table::layer: made with the layer; `base` and `owner` change later, and how the data key is wrapped.
struct LayerRecord {
  crypto::Suite suite = crypto::Suite::plain_gmac;
  std::uint8_t block_shift = 14;  // block size is 2^shift bytes
  std::optional<kms::KeyId> key;  // absent: a plain layer
  kms::WrappedKey data_key;       // with `key`
  LayerId base;                   // read where an entry says so; 0: none
  // What is read of it: the disk of `disk_size` bytes that it holds in that format; raw: its bytes.
  formats::Format base_format = formats::Format::raw;
  std::uint64_t disk_size = 0;
  Ino owner;                      // the image whose top layer it is; 0: kept for younger layers only
  LaterFields later;

  // Whether the base's blocks have to be transformed: until they are all here the layer is no clone but a replication.
  bool transforms(const LayerRecord& its_base) const {
    return key != its_base.key || base_format != formats::Format::raw;
  }
  // Makes it stand alone.
  LayerId take_base();

  std::string encode() const;
  // Errc::wrong_version for one of a layout that this program does not know.
  static Result<LayerRecord> decode(std::string_view bytes);
};

// Table::layer_table: the state of the last checkpoint.
struct LayerTableRecord {
  std::uint64_t size = 0;  // bytes of content
  TableRoot root;
  std::uint64_t stored = 0;      // bytes of blocks in slots
  std::uint64_t next_spill = 0;  // spill slots below were used
  std::uint64_t filled = 0;      // blocks before this one hold nothing "from base" any more

  std::string encode() const;
  static Result<LayerTableRecord> decode(std::string_view bytes);
};

// A change of a layer's blocks, as the journal keeps it; absolute, so that replaying it twice is harmless.
struct LayerChange {
  enum class Kind : std::uint8_t {  // numbers on disk
    blocks = 1,  // entries from block `first` on
    range = 2,   // [first, end) becomes `state`
  };
  Kind kind = Kind::blocks;
  std::uint64_t size = 0;  // of the content afterwards, bytes
  BlockIndex first = 0;
  BlockIndex end = 0;
  BlockState state = BlockState::hole;
  std::vector<BlockEntry> entries;

  std::string encode() const;
  static Result<LayerChange> decode(std::string_view bytes);
};

}  // namespace rekeyfs::blocks
