#include "engine/store/superblock.h"

#include <array>
#include <cstring>
#include <string_view>

#include "engine/crypto/key_wrap.h"

namespace rekeyfs::store {
namespace {

using crypto::Digest;
using crypto::Key;
using crypto::KeyWrap;
using crypto::ScryptCost;

// Layout: header (64 bytes) || wrapped root key (92) || in version 2: features (24) and fields of later versions ||
// SHA-256 of all bytes before || HMAC under the root key of all bytes before. In every format version, a superblock
// starts with magic and version and ends with these two digests, so that damage can be told from a later version.
constexpr std::string_view kMagic = "rekeyfs\n";
constexpr std::size_t kSaltSize = 32;
constexpr std::size_t kHeaderSize = 64;
constexpr std::size_t kDigestSize = sizeof(Digest);
constexpr std::size_t kFeatures = kHeaderSize + KeyWrap::kWrappedSize;  // their offset
constexpr std::size_t kFeaturesSize = 3 * sizeof(std::uint64_t);
constexpr std::size_t kSize = kFeatures + 2 * kDigestSize;  // 220 bytes: version 1
constexpr std::size_t kMinSizeWithFeatures = kSize + kFeaturesSize;
constexpr std::size_t kMinSize = kMagic.size() + sizeof(std::uint32_t) + 2 * kDigestSize;
constexpr std::size_t kMaxSize = 4096;  // of any version

constexpr std::string_view kRootPurpose = "rekeyfs v1 root key";
constexpr std::string_view kMacInfo = "rekeyfs v1 superblock mac";
constexpr std::string_view kKeyFileInfo = "rekeyfs v1 key file";

constexpr std::size_t kMinKeyFile = 32;
constexpr std::size_t kMaxKeyFile = 65536;

// The scrypt costs are read before anything can be authenticated, so they are bounded: a manipulated superblock must
// not exhaust the machine. Limits: 1 GiB of memory (128 * N * r) and 16 times the work of the default.
constexpr std::uint64_t kMaxScryptMemoryUnits = std::uint64_t{1} << 23;  // N * r
constexpr std::uint64_t kMaxScryptWorkUnits = std::uint64_t{1} << 24;    // N * r * p

struct Header {
  Superblock superblock;
  ScryptCost cost;  // zeros for a key file
  std::array<std::byte, kSaltSize> salt{};
};

Error damaged(std::string_view what) {
  return Error{Errc::corrupt, "the superblock `" + std::string(kSuperblockName) + "` " + std::string(what) +
                                  ": restore this file from a backup of the store"};
}

bool is_acceptable(ScryptCost cost) {
  if (cost.log2_n < 10 || cost.log2_n > 22 || cost.r < 1 || cost.r > 32 || cost.p < 1 || cost.p > 16) return false;
  const std::uint64_t memory = (std::uint64_t{1} << cost.log2_n) * cost.r;
  return memory <= kMaxScryptMemoryUnits && memory * cost.p <= kMaxScryptWorkUnits;
}

Status check_credential(const Credential& credential) {
  const std::size_t size = credential.expose_bytes().size();
  if (credential.kind() == Credential::Kind::passphrase) {
    if (size == 0) return fail(Errc::invalid, "the passphrase is empty: give one");
  } else if (size < kMinKeyFile || size > kMaxKeyFile) {
    return fail(Errc::invalid, "the key file has " + std::to_string(size) +
                                   " bytes: it must have 32 to 65536, for example from `head -c 64 /dev/urandom`");
  }
  return {};
}

std::string encode(const Header& header) {
  Writer out;
  out.put_raw(as_bytes(kMagic)).put(header.superblock.version).put_raw(header.superblock.store_id);
  out.put(static_cast<std::uint8_t>(header.superblock.kind));
  out.put(header.cost.log2_n).put(header.cost.r).put(header.cost.p);
  out.put_raw(header.salt);
  return out.take();
}

Result<Header> decode_header(std::string_view bytes) {
  Header header;
  Reader in(bytes.substr(kMagic.size(), kHeaderSize - kMagic.size()));
  header.superblock.version = in.get<std::uint32_t>();
  in.get_into(header.superblock.store_id);
  header.superblock.kind = static_cast<Credential::Kind>(in.get<std::uint8_t>());
  header.cost.log2_n = in.get<std::uint8_t>();
  header.cost.r = in.get<std::uint8_t>();
  header.cost.p = in.get<std::uint8_t>();
  in.get_into(header.salt);
  if (header.superblock.version == kFeaturesVersion) {
    Reader flags(bytes.substr(kFeatures));
    Features& features = header.superblock.features;
    for (std::uint64_t* set : {&features.compat, &features.ro_compat, &features.incompat}) *set = flags.get<std::uint64_t>();
    RK_TRY(can_read(features));
  }
  switch (header.superblock.kind) {
    case Credential::Kind::passphrase:
      if (!is_acceptable(header.cost)) return fail(damaged("has a scrypt cost out of bounds"));
      return header;
    case Credential::Kind::key_file:
      if (header.cost.log2_n != 0 || header.cost.r != 0 || header.cost.p != 0)
        return fail(damaged("has a scrypt cost for a key file"));
      return header;
  }
  return fail(damaged("has an unknown kind of credential"));
}

Digest sha256(std::string_view bytes) {
  crypto::Sha256 hash;
  hash.update(as_bytes(bytes));
  return hash.finish();
}

// Reads the whole file and verifies, as far as possible without a key, that it is undamaged and of this version.
Result<std::string> load(io::Storage& storage) {
  auto file = storage.open(kSuperblockName, io::OpenMode::read);
  if (!file && file.error().code == Errc::not_found)
    return fail(Errc::not_found, "this is not a rekeyfs store: it has no `" + std::string(kSuperblockName) +
                                     "`; give a store's directory, or make one with `rekeyfs init`");
  if (!file) return fail(file.error());
  std::string bytes(kMaxSize + 1, '\0');
  RK_TRY_ASSIGN(const std::size_t size, (*file)->read(0, {reinterpret_cast<std::byte*>(bytes.data()), bytes.size()}));
  bytes.resize(size);
  if (size < kMinSize || size > kMaxSize) return fail(damaged("has an invalid size"));
  if (!bytes.starts_with(kMagic)) return fail(damaged("does not start with the magic bytes"));
  const std::string_view checked = std::string_view(bytes).substr(0, size - 2 * kDigestSize);
  if (std::memcmp(sha256(checked).data(), bytes.data() + checked.size(), kDigestSize) != 0)
    return fail(damaged("does not match its checksum"));
  const auto version = Reader(std::string_view(bytes).substr(kMagic.size())).get<std::uint32_t>();
  if (version != kFormatVersion && version != kFeaturesVersion)
    return fail(Errc::wrong_version, "the store has format version " + std::to_string(version) +
                                         ", this rekeyfs knows versions " + std::to_string(kFormatVersion) + " and " +
                                         std::to_string(kFeaturesVersion) + ": use the rekeyfs that made it, or a newer one");
  if (version == kFormatVersion ? size != kSize : size < kMinSizeWithFeatures) return fail(damaged("has the wrong size"));
  return bytes;
}

// The key that wraps the root key. It is committed to, so that a wrong secret can be told from damage.
Result<KeyWrap> root_wrap(const Header& header, const Credential& credential) {
  const std::string_view secret = credential.expose_bytes();
  auto key = credential.kind() == Credential::Kind::passphrase
                 ? crypto::derive_key_from_passphrase(secret, header.salt, header.cost)
                 : crypto::derive_key(as_bytes(secret), header.salt, kKeyFileInfo);
  if (!key) return fail(key.error());
  return KeyWrap::create(*key, kRootPurpose);
}

// The header as it is in version 2, and the root key wrapped for it.
Result<std::string> head_of(Header header, const KeyWrap& wrap, const Key& root) {
  header.superblock.version = kFeaturesVersion;
  std::string bytes = encode(header);
  RK_TRY_ASSIGN(const std::string wrapped, wrap.wrap(as_bytes(bytes), root));
  return bytes + wrapped;
}

Result<Digest> mac_of(const Key& root, std::string_view bytes) {
  RK_TRY_ASSIGN(Key mac_key, crypto::derive_key(root, {}, kMacInfo));
  RK_TRY_ASSIGN(crypto::Mac mac, crypto::Mac::create(mac_key));
  return mac.digest(as_bytes(bytes));
}

// Appends the two digests that end every superblock.
Status seal(std::string& bytes, const Key& root) {
  bytes += as_text(sha256(bytes));
  RK_TRY_ASSIGN(const Digest mac, mac_of(root, bytes));
  bytes += as_text(mac);
  return {};
}

Status write_new(io::Storage& storage, std::string_view bytes) {
  RK_TRY_ASSIGN(auto file, storage.open(kNewSuperblockName, io::OpenMode::create_new));
  RK_TRY(file->write(0, as_bytes(bytes)));
  RK_TRY(file->sync());
  return storage.sync_directory("");
}

Result<Header> new_header(const Credential& credential, ScryptCost cost) {
  Header header;
  header.superblock.kind = credential.kind();
  if (credential.kind() == Credential::Kind::passphrase) {
    if (!is_acceptable(cost))
      return fail(Errc::invalid,
                  "the scrypt cost is out of bounds: at most 1 GiB of memory and 16 times the default work");
    header.cost = cost;
  } else {
    header.cost = ScryptCost{0, 0, 0};
  }
  RK_TRY_ASSIGN(header.superblock.store_id, crypto::random_uuid());
  RK_TRY(crypto::fill_random(header.salt));
  return header;
}

Error wrong_credential(Credential::Kind needed, const Credential& given) {
  const bool passphrase = needed == Credential::Kind::passphrase;
  if (needed != given.kind())
    return Error{Errc::wrong_secret, passphrase
                                         ? "this store is unlocked by a passphrase, not by a key file: give it by "
                                           "--passphrase-file or on the terminal"
                                         : "this store is unlocked by a key file, not by a passphrase: give it by "
                                           "--key-file"};
  return Error{Errc::wrong_secret, passphrase
                                       ? "the passphrase is not the one of this store: check it and try again"
                                       : "the key file is not the one of this store: check its name and try again"};
}

}  // namespace

Result<Unlocked> create_superblock(io::Storage& storage, const Credential& credential, ScryptCost cost) {
  RK_TRY(check_credential(credential));
  RK_TRY_ASSIGN(const bool taken, storage.exists(kSuperblockName));
  if (taken)
    return fail(Errc::exists, "this directory is a rekeyfs store already: mount it, or choose another directory");
  RK_TRY_ASSIGN(Header header, new_header(credential, cost));
  RK_TRY_ASSIGN(Key root, Key::random());
  RK_TRY_ASSIGN(KeyWrap wrap, root_wrap(header, credential));
  std::string bytes = encode(header);
  RK_TRY_ASSIGN(const std::string wrapped, wrap.wrap(as_bytes(bytes), root));
  bytes += wrapped;
  RK_TRY(seal(bytes, root));
  RK_TRY_ASSIGN(std::string head, head_of(header, wrap, root));
  RK_TRY(write_new(storage, bytes));
  return Unlocked{header.superblock, std::move(root), std::move(head), ""};
}

Status publish_superblock(io::Storage& storage) {
  RK_TRY(storage.rename(kNewSuperblockName, kSuperblockName));
  return storage.sync_directory("");
}

Status put_features(io::Storage& storage, Unlocked& unlocked, const Features& features) {
  std::string bytes = unlocked.head + Writer().put(features.compat).put(features.ro_compat).put(features.incompat).take() + unlocked.later;
  RK_TRY(seal(bytes, unlocked.root));
  RK_TRY(storage.remove(kNewSuperblockName));  // left by a kill
  RK_TRY(write_new(storage, bytes));
  RK_TRY(publish_superblock(storage));
  unlocked.superblock.version = kFeaturesVersion;
  unlocked.superblock.features = features;
  return {};
}

Result<Unlocked> open_superblock(io::Storage& storage, const Credential& credential) {
  RK_TRY_ASSIGN(const std::string bytes, load(storage));
  RK_TRY_ASSIGN(const Header header, decode_header(bytes));
  const Credential::Kind needed = header.superblock.kind;
  if (needed != credential.kind() || !check_credential(credential)) return fail(wrong_credential(needed, credential));
  RK_TRY_ASSIGN(KeyWrap wrap, root_wrap(header, credential));
  const std::string_view all = bytes;
  auto root =
      wrap.unwrap(as_bytes(all.substr(0, kHeaderSize)), as_bytes(all.substr(kHeaderSize, KeyWrap::kWrappedSize)));
  if (!root && root.error().code == Errc::wrong_secret) return fail(wrong_credential(needed, credential));
  if (!root && root.error().code == Errc::corrupt) return fail(damaged("has a root key that does not verify"));
  if (!root) return fail(root.error());
  const std::size_t mac_at = all.size() - kDigestSize;
  RK_TRY_ASSIGN(const Digest mac, mac_of(*root, all.substr(0, mac_at)));
  if (!crypto::equal_constant_time(mac, as_bytes(all.substr(mac_at))))
    return fail(damaged("does not verify"));
  Unlocked unlocked{header.superblock, std::move(*root), "", ""};
  if (header.superblock.version == kFormatVersion) {
    RK_TRY_ASSIGN(unlocked.head, head_of(header, wrap, unlocked.root));
  } else {
    unlocked.head = all.substr(0, kFeatures);
    unlocked.later = all.substr(kFeatures + kFeaturesSize, all.size() - kMinSizeWithFeatures);
  }
  return unlocked;
}

Result<Superblock> read_superblock(io::Storage& storage) {
  RK_TRY_ASSIGN(const std::string bytes, load(storage));
  RK_TRY_ASSIGN(const Header header, decode_header(bytes));
  return header.superblock;
}

}  // namespace rekeyfs::store
