// WatchedKeys: the embedded master keys with a hook before each call that an external key service would get; the hook
// may make it fail. Counts the existing master keys.
#pragma once

#include <functional>
#include <set>
#include <string>

#include "engine/base/mutex.h"
#include "engine/kms/embedded_keys.h"

namespace rekeyfs::test {

class WatchedKeys final : public kms::MasterKeys {
 public:
  enum class Verb { make, wrap, unwrap, destroy };
  using Hook = std::function<Status(Verb)>;

  explicit WatchedKeys(const crypto::Key& root) : keys_(kms::EmbeddedKeys::create(root).value()) {}
  void set_hook(Hook hook) {
    Lock lock(mutex_);
    hook_ = std::move(hook);
  }
  std::size_t living() const {
    Lock lock(mutex_);
    return living_.size();
  }

  Result<std::string> make(const kms::KeyId& id, kms::KeyVersion version) override {
    RK_TRY(ask(Verb::make));
    RK_TRY_ASSIGN(std::string handle, keys_->make(id, version));
    Lock lock(mutex_);
    living_.insert(handle);
    return handle;
  }
  Result<std::unique_ptr<kms::MasterKey>> open(const kms::KeyId& id, kms::KeyVersion version, std::string_view handle) override {
    RK_TRY_ASSIGN(std::unique_ptr<kms::MasterKey> key, keys_->open(id, version, handle));
    return std::unique_ptr<kms::MasterKey>(new WatchedKey(*this, std::move(key)));
  }
  Status destroy(const kms::KeyId& id, kms::KeyVersion version, std::string_view handle) override {
    RK_TRY(ask(Verb::destroy));
    RK_TRY(keys_->destroy(id, version, handle));
    Lock lock(mutex_);
    living_.erase(std::string(handle));
    return {};
  }

 private:
  class WatchedKey final : public kms::MasterKey {
   public:
    WatchedKey(const WatchedKeys& all, std::unique_ptr<kms::MasterKey> key) : all_(all), key_(std::move(key)) {}
    Result<std::string> wrap(const crypto::Key& data_key, ByteView context) const override {
      RK_TRY(all_.ask(Verb::wrap));
      return key_->wrap(data_key, context);
    }
    Result<crypto::Key> unwrap(std::string_view wrapped, ByteView context) const override {
      RK_TRY(all_.ask(Verb::unwrap));
      return key_->unwrap(wrapped, context);
    }

   private:
    const WatchedKeys& all_;
    const std::unique_ptr<kms::MasterKey> key_;
  };

  Status ask(Verb verb) const {
    Hook hook;
    {
      Lock lock(mutex_);
      hook = hook_;
    }
    return hook ? hook(verb) : Status{};
  }

  const std::unique_ptr<kms::EmbeddedKeys> keys_;
  mutable Mutex mutex_;
  Hook hook_ GUARDED_BY(mutex_);
  std::set<std::string> living_ GUARDED_BY(mutex_);
};

}  // namespace rekeyfs::test
