// The key ring: names that users give their keys, and the records that are read when a store is opened.
#include "engine/kms/key_ring.h"

#include <algorithm>
#include <map>

#include "tests/fuzz/fuzz.h"

namespace rekeyfs {
namespace {

class RecordsInMemory final : public kms::KeyRecords {
 public:
  Result<std::optional<std::string>> get(const kms::KeyId& id) override {
    const auto found = records.find(id);
    return found == records.end() ? std::optional<std::string>() : std::optional(found->second);
  }
  Result<std::vector<std::pair<kms::KeyId, std::string>>> all() override {
    return std::vector<std::pair<kms::KeyId, std::string>>(records.begin(), records.end());
  }
  Status put(const kms::KeyId& id, std::string_view record) override {
    records.insert_or_assign(id, record);
    return {};
  }
  Status remove(const kms::KeyId& id) override {
    records.erase(id);
    return {};
  }

  std::map<kms::KeyId, std::string> records;
};

void try_alias(const crypto::Key& root, std::string_view alias) {
  RecordsInMemory records;
  const auto ring = must(kms::KeyRing::open(root, records));
  const auto made = ring->create(alias, 1000);
  const auto found = ring->find(alias);
  require(made.has_value() == found.has_value(), "a key that was made is found by its name, and no other");
  if (!made) return;
  require(found->id == made->id && found->alias == alias, "under its name is this key");
  require(must(ring->find(to_hex(made->id))).alias == alias, "a name is no other key's id");
  require(must(kms::KeyRing::open(root, records))->find(alias).has_value(),
          "a key is there when the store is opened again");
}

// The MAC of a record is under a key that comes from the root key: as if this rekeyfs, or a later one, had written it.
void try_record(const crypto::Key& root, std::string_view body) {
  const crypto::Key mac_key = must(crypto::derive_key(root, {}, "rekeyfs v1 key ring record"));
  const crypto::Mac mac = must(crypto::Mac::create(mac_key));
  Reader in(body.substr(std::min<std::size_t>(body.size(), 1)));  // behind the version
  kms::KeyId id{};
  in.get_into(id);
  RecordsInMemory records;
  records.records.emplace(id, std::string(body) + std::string(as_text(mac.digest(as_bytes(body)))));
  const auto ring = kms::KeyRing::open(root, records);
  if (!ring) return;
  const kms::KeyInfo info = must((*ring)->find(id));
  require(must((*ring)->find(info.alias)).id == id, "a key is found by its alias");
  const auto wrapped = (*ring)->wrap(id, root, {});
  require(wrapped.has_value() == (info.state == kms::KeyState::enabled), "a key wraps exactly if it is enabled");
  if (wrapped) require(must((*ring)->unwrap(id, *wrapped, {})) == root, "and unwraps the same");
  // Written again, as by any change.
  if (info.state == kms::KeyState::pending_deletion) return;
  require((*ring)->disable(id).has_value(), "a key can be disabled");
  const auto again = kms::KeyRing::open(root, records);
  require(again.has_value(), "a record that is written can be read");
  require(must((*again)->find(id)).grantees == info.grantees, "and says the same");
}

// First byte: 'a' for an alias, anything else for a record without its MAC.
void try_input(ByteView input) {
  static const crypto::Key root = fixed_key();
  Reader in(input);
  const auto what = in.get<std::uint8_t>();
  const std::string_view bytes = as_text(in.get_raw(in.left()));
  if (what == 'a')
    try_alias(root, bytes);
  else
    try_record(root, bytes);
}

}  // namespace
}  // namespace rekeyfs

RK_FUZZ_TARGET(rekeyfs::try_input)
