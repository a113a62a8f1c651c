// LayerCipher: seals and opens the blocks of one layer.
//
// Each mount derives its own block key from the layer's data key and the mount's salt (HKDF-SHA256); the nonce is
// a counter within it. What a block authenticates: suite, store, layer, index, mount, counter, length. Thread-safe.
#pragma once

#include <map>
#include <memory>

#include "engine/base/mutex.h"
#include "engine/blocks/block_entry.h"
#include "engine/catalog/epochs.h"
#include "engine/crypto/block_cipher.h"

namespace rekeyfs::blocks {

class LayerCipher {
 public:
  // `epochs` outlives it.
  static Result<std::unique_ptr<LayerCipher>> create(crypto::Suite suite, const Uuid& store, LayerId layer,
                                                     crypto::Key data_key, const catalog::Epochs& epochs);

  // Seals `plain` under a fresh counter of this mount; fills epoch, counter, length and tag of `entry`.
  Status seal(BlockIndex index, ByteView plain, ByteSpan sealed, BlockEntry& entry);
  // The inverse, possibly in place; Errc::corrupt if anything does not match.
  Status open(BlockIndex index, const BlockEntry& entry, ByteView sealed, ByteSpan plain);
  // Authenticates the pages of the layer's block table.
  const crypto::Mac& table_mac() const { return table_mac_; }

 private:
  LayerCipher(crypto::Suite suite, const Uuid& store, LayerId layer, crypto::Key data_key, crypto::Mac table_mac,
              const catalog::Epochs& epochs);
  Result<const crypto::BlockCipher*> cipher_of(EpochId epoch);
  using Context = std::array<std::byte, 64>;
  ByteView context_of(Context& buffer, BlockIndex index, const BlockEntry& entry) const;

  const crypto::Suite suite_;
  const Uuid store_;
  const LayerId layer_;
  const crypto::Key data_key_;
  const crypto::Mac table_mac_;
  const catalog::Epochs& epochs_;
  SharedMutex mutex_;
  std::map<EpochId, crypto::BlockCipher> ciphers_ GUARDED_BY(mutex_);  // never removed
};

}  // namespace rekeyfs::blocks
