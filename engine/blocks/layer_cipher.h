// LayerCipher: encrypts and decrypts the blocks of one layer.
//
// Each mount derives its own block key from the layer's data key and the mount's salt (HKDF-SHA256); the nonce is a
// counter within the mount. The authenticated context of a block is: suite, store, layer, index, mount, counter,
// length. The data key is unwrapped on first use, so that a layer whose master key is disabled can still be deleted,
// replayed and checkpointed. Nothing is encrypted or decrypted while the master key's gate is shut. Thread-safe.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>

#include "engine/base/mutex.h"
#include "engine/blocks/block_entry.h"
#include "engine/catalog/epochs.h"
#include "engine/crypto/block_cipher.h"
#include "engine/kms/key_gate.h"

namespace rekeyfs::blocks {

class LayerCipher {
 public:
  // Unwraps the data key through the key directory and its key service. The error says why the key is not available.
  using UnwrapDataKey = std::function<Result<crypto::Key>()>;

  // `gate` belongs to the master key; null for a plain layer. `epochs` must outlive the cipher.
  LayerCipher(crypto::Suite suite, const Uuid& store, LayerId layer, UnwrapDataKey unwrap,
              std::shared_ptr<const kms::KeyGate> gate, const catalog::Epochs& epochs)
      : suite_(suite), store_(store), layer_(layer), unwrap_(std::move(unwrap)), gate_(std::move(gate)), epochs_(epochs) {}

  // Errc::key_revoked or Errc::no_key while the layer must not be read or written.
  Status may_use_key() const;
  // Wipes the data key and all keys derived from it; the next block unwraps the data key again.
  void forget_key() EXCLUDES(mutex_);
  // Encrypts `plain` with the next counter of this mount and fills epoch, counter, length and tag of `entry`.
  Status seal(BlockIndex index, ByteView plain, ByteSpan sealed, BlockEntry& entry);
  // Decrypts, possibly in place. Errc::corrupt if authentication fails.
  Status open(BlockIndex index, const BlockEntry& entry, ByteView sealed, ByteSpan plain);

 private:
  using CipherPtr = std::shared_ptr<const crypto::BlockCipher>;
  Result<CipherPtr> cipher_of(EpochId epoch) EXCLUDES(mutex_);
  // Unwraps the data key unless it is present. Does so without the lock, because the key service may take seconds.
  Status obtain_key() EXCLUDES(mutex_);
  Result<CipherPtr> make_cipher(EpochId epoch) REQUIRES(mutex_);
  using Context = std::array<std::byte, 64>;
  ByteView context_of(Context& buffer, BlockIndex index, const BlockEntry& entry) const;

  const crypto::Suite suite_;
  const Uuid store_;
  const LayerId layer_;
  const UnwrapDataKey unwrap_;
  const std::shared_ptr<const kms::KeyGate> gate_;
  const catalog::Epochs& epochs_;
  SharedMutex mutex_;
  std::optional<crypto::Key> data_key_ GUARDED_BY(mutex_);
  std::map<EpochId, CipherPtr> ciphers_ GUARDED_BY(mutex_);
};

}  // namespace rekeyfs::blocks
