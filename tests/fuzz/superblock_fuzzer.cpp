// The superblock: the only file that is read before anything can be authenticated.
#include "engine/store/superblock.h"

#include "engine/crypto/hash.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory_storage.h"

namespace rekeyfs {
namespace {

constexpr std::size_t kDigests = 64;          // at its end: SHA-256, HMAC
constexpr std::size_t kKindAt = 28;           // then scrypt's log2 N, r, p
constexpr std::uint64_t kMaxWork = 1 << 14;  // N * r * p: what an input may cost

Credential key_file() {
  return Credential(Credential::Kind::key_file, std::string(64, 'k'));
}
Credential passphrase() {
  return Credential(Credential::Kind::passphrase, "correct horse");
}

// So that what is behind the checksum is reached.
void set_checksum_right(std::string& bytes) {
  if (bytes.size() < kDigests) return;
  crypto::Sha256 hash;
  hash.update(as_bytes(bytes).first(bytes.size() - kDigests));
  bytes.replace(bytes.size() - kDigests, sizeof(crypto::Digest), as_text(hash.finish()));
}

bool asks_for_little_work(std::string_view bytes) {
  if (bytes.size() < kKindAt + 4 || bytes[kKindAt] != static_cast<char>(Credential::Kind::passphrase)) return true;
  const auto cost = [&](std::size_t at) {
    return static_cast<std::uint64_t>(static_cast<unsigned char>(bytes[kKindAt + at]));
  };
  return cost(1) <= 14 && (std::uint64_t{1} << cost(1)) * cost(2) * cost(3) <= kMaxWork;
}

Result<store::Unlocked> open(MemoryStorage& storage, const std::string& bytes) {
  storage.bytes(std::string(store::kSuperblockName)) = bytes;
  auto by_file = store::open_superblock(storage, key_file());
  if (by_file || !asks_for_little_work(bytes)) return by_file;
  return store::open_superblock(storage, passphrase());
}

// First byte: whether the checksum is set right. The rest: the file.
void try_input(ByteView input) {
  Reader in(input);
  const bool set_right = in.get<std::uint8_t>() != 0;
  std::string bytes(as_text(in.get_raw(in.left())));
  if (set_right) set_checksum_right(bytes);

  MemoryStorage storage;
  const auto unlocked = open(storage, bytes);
  const auto read = store::read_superblock(storage);
  if (!unlocked) return;
  require(read && read->store_id == unlocked->superblock.store_id, "what is unlocked can be read as well");
  for (std::size_t at = 0; at < bytes.size(); at += 13) {
    std::string changed = bytes;
    changed[at] = static_cast<char>(changed[at] ^ 1);
    set_checksum_right(changed);
    require(changed == bytes || !open(storage, changed), "no other superblock is unlocked");
  }
}

}  // namespace
}  // namespace rekeyfs

RK_FUZZ_TARGET(rekeyfs::try_input)
