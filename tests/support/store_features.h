// Stores as a later version of rekeyfs may leave them: with unknown features.
#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "engine/crypto/hash.h"
#include "engine/crypto/key_wrap.h"
#include "engine/io/local_storage.h"
#include "engine/store/superblock.h"
#include "tests/support/store_copies.h"

namespace rekeyfs::test {

// Adds features to the superblock of a store without features (test_credential()). `more`: fields added by later
// features.
inline void give_features(const std::string& store, const store::Features& features, const std::string& more = {}) {
  const std::string path = store + "/rekeyfs.store";
  const store::Unlocked unlocked = std::move(*store::open_superblock(**io::LocalStorage::open(store), test_credential()));
  std::ifstream in(path, std::ios::binary);
  std::string bytes(std::istreambuf_iterator<char>(in), {});
  bytes.resize(64);
  bytes[8] = 2;
  const crypto::Key secret =
      std::move(*crypto::derive_key(as_bytes(test_credential().expose_bytes()), as_bytes(bytes).subspan(32), "rekeyfs v1 key file"));
  const crypto::KeyWrap wrap = std::move(*crypto::KeyWrap::create(secret, "rekeyfs v1 root key"));
  bytes += *wrap.wrap(as_bytes(bytes), unlocked.root);
  bytes += Writer().put(features.compat).put(features.ro_compat).put(features.incompat).take() + more;
  crypto::Sha256 hash;
  hash.update(as_bytes(bytes));
  bytes += as_text(hash.finish());
  const crypto::Key mac_key = std::move(*crypto::derive_key(unlocked.root, {}, "rekeyfs v1 superblock mac"));
  bytes += as_text(crypto::Mac::create(mac_key)->digest(as_bytes(bytes)));
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

}  // namespace rekeyfs::test
