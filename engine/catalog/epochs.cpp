#include "engine/catalog/epochs.h"

namespace rekeyfs::catalog {
namespace {
constexpr std::size_t kMaxCached = 512;
}

void Epochs::add(EpochId epoch, const Salt& salt) {
  Lock lock(mutex_);
  salts_.insert_or_assign(epoch, salt);
}

void Epochs::set_current(EpochId epoch) {
  Lock lock(mutex_);
  current_ = epoch;
}

EpochId Epochs::current() const {
  Lock lock(mutex_);
  return current_;
}

EpochId Epochs::newest() const {
  Lock lock(mutex_);
  return salts_.empty() ? EpochId{} : salts_.rbegin()->first;
}

Result<std::uint64_t> Epochs::next_counter() const {
  const std::uint64_t counter = next_counter_.fetch_add(1, std::memory_order_relaxed);
  if (counter < kCounterEnd) return counter;
  return fail(Errc::read_only, "this mount has used all its nonces: unmount the store and mount it again");
}

Result<Salt> Epochs::salt_of(EpochId epoch) const {
  Lock lock(mutex_);
  const auto found = salts_.find(epoch);
  if (found == salts_.end())
    return fail(Errc::corrupt, "the catalog has no record of mount number " + std::to_string(epoch.value()));
  return found->second;
}

Result<crypto::Aead> Epochs::make_aead(EpochId epoch, std::string_view purpose) const {
  RK_TRY_ASSIGN(const Salt salt, salt_of(epoch));
  RK_TRY_ASSIGN(const crypto::Key key, crypto::derive_key(root_, salt, purpose));
  return crypto::Aead::create(key, crypto::NonceSource::counting);
}

Result<std::shared_ptr<const crypto::Aead>> Epochs::aead_of(EpochId epoch, std::string_view purpose) const {
  const std::pair<EpochId, std::string> which(epoch, purpose);
  {
    Lock lock(mutex_);
    if (const auto found = aeads_.find(which); found != aeads_.end()) return found->second;
  }
  RK_TRY_ASSIGN(crypto::Aead aead, make_aead(epoch, purpose));
  Lock lock(mutex_);
  // Aeads of the current mount are never dropped: each owns its nonce counter, so there must be only one of each.
  const EpochId current = current_;
  if (aeads_.size() >= kMaxCached) std::erase_if(aeads_, [&](const auto& held) { return held.first.first != current; });
  return aeads_.try_emplace(which, std::make_shared<const crypto::Aead>(std::move(aead))).first->second;
}

}  // namespace rekeyfs::catalog
