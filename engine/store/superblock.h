// Superblock: the file `rekeyfs.store`, which identifies a store and holds its wrapped root key.
//
// A binary format, specified in man/rekeyfs-format.5: magic, format version, store id, how to unlock, the wrapped root
// key, and a MAC under the root key over all of it. A store without features has version 1, which every rekeyfs reads;
// version 2 adds the feature flags. `init` writes the file as `rekeyfs.store.new`, synced; when everything else is
// durable, it renames the file and syncs the directory. A new feature replaces the file in the same way.
#pragma once

#include <optional>
#include <string>

#include "engine/base/ids.h"
#include "engine/crypto/hash.h"
#include "engine/base/credential.h"
#include "engine/io/storage.h"
#include "engine/store/features.h"

namespace rekeyfs::store {

inline constexpr std::uint32_t kFormatVersion = 1;    // of a store without features
inline constexpr std::uint32_t kFeaturesVersion = 2;  // of a store with features
inline constexpr std::string_view kSuperblockName = "rekeyfs.store";
inline constexpr std::string_view kNewSuperblockName = "rekeyfs.store.new";  // while it is being written

struct Superblock {
  std::uint32_t version = kFormatVersion;
  Uuid store_id{};
  Credential::Kind kind = Credential::Kind::key_file;
  Features features;
};

struct Unlocked {
  Superblock superblock;
  crypto::Key root;
  // The start of a superblock of version 2, up to the features. Made while the secret is known, because a feature may be
  // added when it has been wiped. Not secret.
  std::string head;
  std::string later;  // fields of features that this program does not know
};

// Generates a random root key and writes the superblock durably under kNewSuperblockName. Errc::exists if the file
// exists under either name. Errc::invalid for an empty passphrase, or a key file of less than 32 or more than 65536
// bytes.
Result<Unlocked> create_superblock(io::Storage& storage, const Credential& credential, crypto::ScryptCost cost = {});
// Renames the new superblock: from now on the directory is a store. Everything else in it must be durable.
Status publish_superblock(io::Storage& storage);

// Replaces the superblock by one with `features`; durable when it returns. A kill or a power cut leaves the old or the
// new file. After an error either may be in place, and `unlocked` is unchanged.
Status put_features(io::Storage& storage, Unlocked& unlocked, const Features& features);

// Errc::not_found if the directory is not a store; Errc::wrong_version for an unknown version or feature;
// Errc::wrong_secret; Errc::corrupt if the file is damaged. Each message names the next step. Unlocking costs read from
// the file are bounded before use.
Result<Unlocked> open_superblock(io::Storage& storage, const Credential& credential);

// The fields that can be read without unlocking.
Result<Superblock> read_superblock(io::Storage& storage);

}  // namespace rekeyfs::store
