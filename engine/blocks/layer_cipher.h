// LayerCipher: seals and opens the blocks of one layer.
//
// Each mount derives its own block key from the layer's data key and the mount's salt (HKDF-SHA256); the nonce is
// a counter within it. What a block authenticates: suite, store, layer, index, mount, counter, length. The data key is
// unwrapped when it is first needed, so that a layer whose master key is disabled can still be deleted, replayed and
// kept in order; and nothing is sealed or opened while the master key's gate is shut. Thread-safe.
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
  // Asks the key directory, which says why when it does not give the key, and through it the key service.
  using UnwrapDataKey = std::function<Result<crypto::Key>()>;

  // `gate` is the master key's, null for a plain layer. `epochs` outlives the cipher.
  LayerCipher(crypto::Suite suite, const Uuid& store, LayerId layer, UnwrapDataKey unwrap,
              std::shared_ptr<const kms::KeyGate> gate, const catalog::Epochs& epochs)
      : suite_(suite), store_(store), layer_(layer), unwrap_(std::move(unwrap)), gate_(std::move(gate)), epochs_(epochs) {}

  // Errc::key_revoked or Errc::no_key while the layer must not be read or written.
  Status may_use_key() const;
  // Lets go of the data key and of what was made from it; the next block asks for it anew.
  void forget_key() EXCLUDES(mutex_);
  // Seals `plain` under a fresh counter of this mount; fills epoch, counter, length and tag of `entry`.
  Status seal(BlockIndex index, ByteView plain, ByteSpan sealed, BlockEntry& entry);
  // The inverse, possibly in place; Errc::corrupt if anything does not match.
  Status open(BlockIndex index, const BlockEntry& entry, ByteView sealed, ByteSpan plain);

 private:
  using CipherPtr = std::shared_ptr<const crypto::BlockCipher>;
  Result<CipherPtr> cipher_of(EpochId epoch) EXCLUDES(mutex_);
  // Has the data key unwrapped, unless it is there: without the lock, since the key service may take seconds.
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
