#include "engine/kms/embedded_keys.h"

#include "engine/base/bytes.h"

namespace rekeyfs::kms {
namespace {

constexpr std::string_view kMasterPurpose = "rekeyfs v1 master key";
constexpr std::string_view kDataPurpose = "rekeyfs v1 data key";

std::string handle_context(const KeyId& id, KeyVersion version) {
  return Writer().put_string(kMasterPurpose).put_raw(id).put(version).put_string("").take();
}

// Maps failures: another key, another context and damage cannot be told apart here.
Result<crypto::Key> unwrap_by(const crypto::KeyWrap& wrap, ByteView context, std::string_view wrapped, const char* what) {
  auto key = wrap.unwrap(context, as_bytes(wrapped));
  const bool forged = !key && (key.error().code == Errc::wrong_secret || key.error().code == Errc::corrupt);
  if (forged) return fail(Errc::corrupt, what);
  return key;
}

class EmbeddedKey final : public MasterKey {
 public:
  explicit EmbeddedKey(crypto::KeyWrap wrap) : wrap_(std::move(wrap)) {}
  Result<std::string> wrap(const crypto::Key& data_key, ByteView context) const override { return wrap_.wrap(context, data_key); }
  Result<crypto::Key> unwrap(std::string_view wrapped, ByteView context) const override {
    return unwrap_by(wrap_, context, wrapped, "the data key does not open");
  }

 private:
  const crypto::KeyWrap wrap_;
};

}  // namespace

Result<std::unique_ptr<EmbeddedKeys>> EmbeddedKeys::create(const crypto::Key& root) {
  RK_TRY_ASSIGN(crypto::KeyWrap wrap, crypto::KeyWrap::create(root, kMasterPurpose));
  return std::unique_ptr<EmbeddedKeys>(new EmbeddedKeys(std::move(wrap)));
}

Result<std::string> EmbeddedKeys::make(const KeyId& id, KeyVersion version) {
  RK_TRY_ASSIGN(const crypto::Key key, crypto::Key::random());
  return wrap_.wrap(as_bytes(handle_context(id, version)), key);
}

Result<std::unique_ptr<MasterKey>> EmbeddedKeys::open(const KeyId& id, KeyVersion version, std::string_view handle) {
  RK_TRY_ASSIGN(const crypto::Key key, unwrap_by(wrap_, as_bytes(handle_context(id, version)), handle, "the master key does not open"));
  RK_TRY_ASSIGN(crypto::KeyWrap wrap, crypto::KeyWrap::create(key, kDataPurpose));
  return std::unique_ptr<MasterKey>(new EmbeddedKey(std::move(wrap)));
}

}  // namespace rekeyfs::kms
