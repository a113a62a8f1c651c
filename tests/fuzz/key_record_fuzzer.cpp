// The key directory: key names chosen by users, and the records read when a store is opened.
#include "engine/kms/embedded_keys.h"
#include "engine/kms/key_directory.h"

#include <algorithm>
#include <map>

#include "tests/fuzz/fuzz.h"

namespace rekeyfs {
namespace {

class RecordsInMemory final : public kms::KeyRecords {
 public:
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
  const auto masters = must(kms::EmbeddedKeys::create(root));
  const auto directory = must(kms::KeyDirectory::open(root, records, *masters));
  const auto made = directory->create(alias, 1000);
  const auto found = directory->find(alias);
  require(made.has_value() == found.has_value(), "a key that was made is found by its name, and no other");
  if (!made) return;
  require(found->id == made->id && found->alias == alias, "under its name is this key");
  require(must(directory->find(to_hex(made->id))).alias == alias, "a name is no other key's id");
  require(must(kms::KeyDirectory::open(root, records, *masters))->find(alias).has_value(),
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
  const auto masters = must(kms::EmbeddedKeys::create(root));
  const auto directory = kms::KeyDirectory::open(root, records, *masters);
  if (!directory) return;
  const kms::KeyInfo info = must((*directory)->find(id));
  require(must((*directory)->find(info.alias)).id == id, "a key is found by its alias");
  const auto wrapped = (*directory)->wrap(id, root, {});
  require(wrapped.has_value() == (info.state == kms::KeyState::enabled), "a key wraps exactly if it is enabled");
  if (wrapped) require(must((*directory)->unwrap(id, *wrapped, {})) == root, "and unwraps the same");
  // Written again, as by any change.
  if (info.state == kms::KeyState::pending_deletion) return;
  require((*directory)->disable(id).has_value(), "a key can be disabled");
  const auto again = kms::KeyDirectory::open(root, records, *masters);
  require(again.has_value(), "a record that is written can be read");
  const kms::KeyInfo same = must((*again)->find(id));
  require(same.grantees == info.grantees && same.declassifiers == info.declassifiers, "and says the same");
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
