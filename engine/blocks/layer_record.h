// The records of a layer in the catalog and the journal, and their encodings.
#pragma once

#include <optional>
#include <variant>

#include "engine/base/later_fields.h"
#include "engine/blocks/block_table.h"
#include "engine/crypto/block_cipher.h"
#include "engine/formats/format.h"
#include "engine/kms/key_info.h"

namespace rekeyfs::blocks {

// Table::layer: written when the layer is made. `base`, `owner` and the wrapping of the data key change later.
struct LayerRecord {
  crypto::Suite suite = crypto::Suite::plain_gmac;
  std::uint8_t block_shift = 14;  // block size is 2^shift bytes
  std::optional<kms::KeyId> key;  // absent: a plain layer
  kms::WrappedKey data_key;       // present if `key` is
  LayerId base;                   // source of blocks in state "base"; 0: none
  // How the base is read: as a disk of `disk_size` bytes in this format; raw: byte by byte.
  formats::Format base_format = formats::Format::raw;
  std::uint64_t disk_size = 0;
  Ino owner;                      // image whose top layer this is; 0: kept only for the layers above it
  bool promised = false;          // space was promised to blocks: the layer can occupy more than it stores
  LaterFields later;

  // Whether blocks of the base must be transformed (re-encrypted or converted). If so, this layer is a replica in the
  // making, not a clone.
  bool transforms(const LayerRecord& its_base) const {
    return key != its_base.key || base_format != formats::Format::raw;
  }
  // Removes the base from the record and returns it.
  LayerId take_base();

  std::string encode() const;
  // Errc::wrong_version if this program does not know the record's layout.
  static Result<LayerRecord> decode(std::string_view bytes);
};

// Table::layer_table: the layer's state as of the last checkpoint.
struct LayerTableRecord {
  std::uint64_t size = 0;  // bytes of content
  TableRoot root;
  std::uint64_t stored = 0;      // bytes of blocks in slots
  std::uint64_t next_spill = 0;  // all spill slots below this one were used
  std::uint64_t filled = 0;      // no block before this one is in state "base"

  std::string encode() const;
  static Result<LayerTableRecord> decode(std::string_view bytes);
};

// A change of a layer's blocks as recorded in the journal. Absolute, so replaying it is idempotent.
struct LayerChange {
  enum class Kind : std::uint8_t {  // numbers on disk
    blocks = 1,  // `entries`, from block `first` on
    range = 2,   // [first, end) becomes `state`
  };
  Kind kind = Kind::blocks;
  std::uint64_t size = 0;  // of the content after the change, in bytes
  BlockIndex first = 0;
  BlockIndex end = 0;
  BlockState state = BlockState::hole;
  std::vector<BlockEntry> entries;

  std::string encode() const;
  static Result<LayerChange> decode(std::string_view bytes);
};

}  // namespace rekeyfs::blocks
