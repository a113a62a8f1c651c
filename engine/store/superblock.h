// Superblock: the file `rekeyfs.store` that identifies a store and holds its root key, locked.
//
// JSON is not used: the bytes are specified in man/rekeyfs-format.5 (magic, format version, store id, how to
// unlock, the wrapped root key, and a MAC under the root key over all of it). A store without features has version 1,
// which every rekeyfs reads; version 2 adds the sets of flags. Written once, by init: first of all to
// `rekeyfs.store.new`, synced; when everything else is durable that is renamed, and the directory synced.
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
inline constexpr std::uint32_t kFeaturesVersion = 2;  // of a store with some
inline constexpr std::string_view kSuperblockName = "rekeyfs.store";
inline constexpr std::string_view kNewSuperblockName = "rekeyfs.store.new";  // of a store that is being made

struct Superblock {
  std::uint32_t version = kFormatVersion;
  Uuid store_id{};
  Credential::Kind kind = Credential::Kind::key_file;
  Features features;
};

struct Unlocked {
  Superblock superblock;
  crypto::Key root;
};

// Makes a random root key and writes the superblock, durable, under its name for the time being. Errc::exists if there
// is one under either name. Errc::invalid for an empty passphrase or a key file of less than 32 or more than 65536
// bytes.
Result<Unlocked> create_superblock(io::Storage& storage, const Credential& credential, crypto::ScryptCost cost = {});
// Gives it its name: from now on the directory is a store. Everything else in it is durable.
Status publish_superblock(io::Storage& storage);

// Errc::not_found if it is no store; Errc::wrong_version, also for a feature that keeps this program from reading it; Errc::wrong_secret; Errc::corrupt if damaged. Each
// message names the next step. Costs read from the file are bounded before use.
Result<Unlocked> open_superblock(io::Storage& storage, const Credential& credential);

// What can be told without unlocking.
Result<Superblock> read_superblock(io::Storage& storage);

}  // namespace rekeyfs::store
