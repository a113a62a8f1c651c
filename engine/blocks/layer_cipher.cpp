#include "engine/blocks/layer_cipher.h"

namespace rekeyfs::blocks {

Result<std::unique_ptr<LayerCipher>> LayerCipher::create(crypto::Suite suite, const Uuid& store, LayerId layer,
                                                         crypto::Key data_key, const catalog::Epochs& epochs) {
  const std::string id = Writer().put(layer.value()).take();
  RK_TRY_ASSIGN(const crypto::Key mac_key, crypto::derive_key(data_key, as_bytes(id), "rekeyfs block table"));
  RK_TRY_ASSIGN(crypto::Mac mac, crypto::Mac::create(mac_key));
  return std::unique_ptr<LayerCipher>(
      new LayerCipher(suite, store, layer, std::move(data_key), std::move(mac), epochs));
}

LayerCipher::LayerCipher(crypto::Suite suite, const Uuid& store, LayerId layer, crypto::Key data_key,
                         crypto::Mac table_mac, const catalog::Epochs& epochs)
    : suite_(suite),
      store_(store),
      layer_(layer),
      data_key_(std::move(data_key)),
      table_mac_(std::move(table_mac)),
      epochs_(epochs) {}

Result<const crypto::BlockCipher*> LayerCipher::cipher_of(EpochId epoch) {
  {
    SharedLock lock(mutex_);
    if (const auto found = ciphers_.find(epoch); found != ciphers_.end()) return &found->second;
  }
  RK_TRY_ASSIGN(const catalog::Salt salt, epochs_.salt_of(epoch));
  const std::string info = Writer().put_raw(as_bytes("rekeyfs block")).put(layer_.value()).take();
  RK_TRY_ASSIGN(const crypto::Key key, crypto::derive_key(data_key_, salt, info));
  RK_TRY_ASSIGN(crypto::BlockCipher cipher, crypto::BlockCipher::create(suite_, key));
  UniqueLock lock(mutex_);
  return &ciphers_.try_emplace(epoch, std::move(cipher)).first->second;
}

ByteView LayerCipher::context_of(Context& buffer, BlockIndex index, const BlockEntry& entry) const {
  std::size_t at = 0;
  auto put = [&](const void* from, std::size_t size) {
    std::memcpy(&buffer[at], from, size);
    at += size;
  };
  static_assert(std::endian::native == std::endian::little, "numbers are laid out as they are in memory");
  const std::uint64_t layer = layer_.value();
  const std::uint32_t epoch = entry.epoch.value();
  put(&suite_, 1);
  put(store_.data(), store_.size());
  put(&layer, 8);
  put(&index, 8);
  put(&epoch, 4);
  put(&entry.counter, 8);
  put(&entry.stored_length, 4);
  return ByteView(buffer).first(at);
}

Status LayerCipher::seal(BlockIndex index, ByteView plain, ByteSpan sealed, BlockEntry& entry) {
  entry.state = BlockState::data;
  entry.stored_length = static_cast<std::uint32_t>(plain.size());
  entry.epoch = epochs_.current();
  RK_TRY_ASSIGN(entry.counter, epochs_.next_counter());
  RK_TRY_ASSIGN(const crypto::BlockCipher* const cipher, cipher_of(entry.epoch));
  Context buffer;
  return cipher->seal(entry.counter, context_of(buffer, index, entry), plain, sealed, entry.tag);
}

Status LayerCipher::open(BlockIndex index, const BlockEntry& entry, ByteView sealed, ByteSpan plain) {
  RK_TRY_ASSIGN(const crypto::BlockCipher* const cipher, cipher_of(entry.epoch));
  Context buffer;
  return cipher->open(entry.counter, context_of(buffer, index, entry), sealed, plain, entry.tag);
}

}  // namespace rekeyfs::blocks
