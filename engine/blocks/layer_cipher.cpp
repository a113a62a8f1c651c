#include "engine/blocks/layer_cipher.h"

namespace rekeyfs::blocks {

Status LayerCipher::may_use_key() const {
  if (!gate_ || gate_->is_open()) return {};
  RK_TRY(unwrap_());
  return {};
}

void LayerCipher::forget_key() {
  UniqueLock lock(mutex_);
  data_key_.reset();
  ciphers_.clear();
}

Result<LayerCipher::CipherPtr> LayerCipher::cipher_of(EpochId epoch) {
  RK_TRY(may_use_key());
  {
    SharedLock lock(mutex_);
    if (const auto found = ciphers_.find(epoch); found != ciphers_.end()) return found->second;
  }
  for (;;) {
    RK_TRY(obtain_key());
    UniqueLock lock(mutex_);
    if (const auto found = ciphers_.find(epoch); found != ciphers_.end()) return found->second;
    if (!data_key_) continue;  // forgotten by another thread meanwhile
    RK_TRY_ASSIGN(CipherPtr cipher, make_cipher(epoch));
    return ciphers_.try_emplace(epoch, std::move(cipher)).first->second;
  }
}

Status LayerCipher::obtain_key() {
  {
    SharedLock lock(mutex_);
    if (data_key_) return {};
  }
  RK_TRY_ASSIGN(crypto::Key key, unwrap_());
  {
    UniqueLock lock(mutex_);
    // The gate is shut before keys are forgotten, so a key that arrives later is not kept.
    const bool may_keep = !gate_ || gate_->is_open();
    if (may_keep && !data_key_) data_key_.emplace(std::move(key));
  }
  return may_use_key();
}

Result<LayerCipher::CipherPtr> LayerCipher::make_cipher(EpochId epoch) {
  RK_TRY_ASSIGN(const catalog::Salt salt, epochs_.salt_of(epoch));
  const std::string info = Writer().put_raw(as_bytes("rekeyfs block")).put(layer_.value()).take();
  RK_TRY_ASSIGN(const crypto::Key key, crypto::derive_key(*data_key_, salt, info));
  RK_TRY_ASSIGN(crypto::BlockCipher cipher, crypto::BlockCipher::create(suite_, key));
  return std::make_shared<const crypto::BlockCipher>(std::move(cipher));
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
  RK_TRY_ASSIGN(const CipherPtr cipher, cipher_of(entry.epoch));
  Context buffer;
  return cipher->seal(entry.counter, context_of(buffer, index, entry), plain, sealed, entry.tag);
}

Status LayerCipher::open(BlockIndex index, const BlockEntry& entry, ByteView sealed, ByteSpan plain) {
  RK_TRY_ASSIGN(const CipherPtr cipher, cipher_of(entry.epoch));
  Context buffer;
  return cipher->open(entry.counter, context_of(buffer, index, entry), sealed, plain, entry.tag);
}

}  // namespace rekeyfs::blocks
