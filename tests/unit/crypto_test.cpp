// Hashes, key derivation, AEADs and keys: published test vectors, attacks, and misuse by a caller.
#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstring>
#include <fstream>
#include <list>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <openssl/crypto.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/credential.h"
#include "engine/crypto/aead.h"
#include "engine/crypto/block_cipher.h"
#include "engine/crypto/cipher_pool.h"
#include "engine/crypto/hash.h"
#include "engine/crypto/key.h"
#include "engine/crypto/key_wrap.h"

namespace rekeyfs::crypto {
namespace {

std::string from_hex(std::string_view hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes += static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
  return bytes;
}

std::string to_hex(ByteView bytes) {
  std::string text;
  for (std::byte b : bytes) {
    text += "0123456789abcdef"[std::to_integer<unsigned>(b) >> 4];
    text += "0123456789abcdef"[std::to_integer<unsigned>(b) & 15];
  }
  return text;
}
std::string to_hex(const std::string& bytes) {
  return to_hex(as_bytes(bytes));
}
std::string to_hex(const Key& key) {
  return to_hex(ByteView(key.expose_key_bytes()));
}

ByteSpan writable(std::string& text) {
  return {reinterpret_cast<std::byte*>(text.data()), text.size()};
}

// A key from up to 32 bytes in hex, zeros behind.
Key key_of(std::string_view hex) {
  std::string bytes = from_hex(hex);
  bytes.resize(kKeySize, '\0');
  return Key::from_bytes(as_bytes(bytes).first<kKeySize>()).value();
}

template <std::size_t N>
std::array<std::byte, N> array_of(std::string_view hex) {
  const std::string bytes = from_hex(hex);
  std::array<std::byte, N> array{};
  std::memcpy(array.data(), bytes.data(), std::min(N, bytes.size()));
  return array;
}

// ---- Key

TEST(RandomTest, UuidsAreOfVersion4AndDiffer) {
  std::set<std::string> texts;
  for (int i = 0; i < 100; ++i) {
    const auto id = random_uuid();
    ASSERT_TRUE(id);
    const std::string text = to_uuid_text(*id);
    ASSERT_EQ(text.size(), 36u);
    EXPECT_EQ(text[14], '4') << text;
    EXPECT_NE(std::string_view("89ab").find(text[19]), std::string_view::npos) << text;
    texts.insert(text);
  }
  EXPECT_EQ(texts.size(), 100u);
}

TEST(KeyTest, RandomKeysDiffer) {
  Key a = Key::random().value();
  Key b = Key::random().value();
  EXPECT_FALSE(a == b);
  EXPECT_TRUE(a == Key::from_bytes(a.expose_key_bytes()).value());
}

TEST(KeyTest, MovingLeavesTheBytesInOnePlace) {
  Key a = key_of("0102030405060708");
  const std::byte* bytes = a.expose_key_bytes().data();
  Key b = std::move(a);
  EXPECT_EQ(b.expose_key_bytes().data(), bytes);
  Key c = Key::random().value();
  c = std::move(b);
  EXPECT_TRUE(c == key_of("0102030405060708"));
  Key& same = c;
  c = std::move(same);
  EXPECT_TRUE(c == key_of("0102030405060708"));
}

TEST(KeyDeathTest, MovedFromKeySealsNothing) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  Key a = Key::random().value();
  Key b = std::move(a);
  // NOLINTBEGIN(bugprone-use-after-move, clang-analyzer-cplusplus.Move): it is what is tested
  EXPECT_EXIT((void)Aead::create(a, NonceSource::random), ::testing::KilledBySignal(SIGABRT), "");
  EXPECT_EXIT((void)derive_key(a, {}, "info"), ::testing::KilledBySignal(SIGABRT), "");
  EXPECT_EXIT((void)(a == b), ::testing::KilledBySignal(SIGABRT), "");
  // NOLINTEND(bugprone-use-after-move, clang-analyzer-cplusplus.Move)
}

// The flags that the kernel shows (proc_pid_smaps(5)) for the mapping that holds `address`.
std::string memory_flags(const void* address) {
  const auto wanted = reinterpret_cast<std::uintptr_t>(address);
  std::ifstream maps("/proc/self/smaps");
  bool inside = false;
  for (std::string line; std::getline(maps, line);) {
    std::uintptr_t low = 0, high = 0;
    char dash = 0;
    if (std::istringstream(line) >> std::hex >> low >> dash >> high && dash == '-')
      inside = wanted >= low && wanted < high;
    if (inside && line.starts_with("VmFlags:")) return line + " ";
  }
  return "";
}

bool is_secret_memory(const void* address) {
  const std::string flags = memory_flags(address);
  return flags.find(" lo ") != std::string::npos && flags.find(" dd ") != std::string::npos;
}

// A sanitizer's mlock() says that it did, and does nothing.
bool mlock_is_real() {
  alignas(4096) static std::array<char, 4096> page{};
  return ::mlock(page.data(), page.size()) != 0 || memory_flags(page.data()).find(" lo ") != std::string::npos;
}

TEST(SecretMemoryTest, IsLockedAndLeftOutOfCoreDumps) {
  if (!mlock_is_real()) GTEST_SKIP() << "nothing can be locked in this build";
  const Key key = Key::random().value();
  EXPECT_TRUE(is_secret_memory(key.expose_key_bytes().data()));
  for (std::size_t size : {std::size_t{1}, std::size_t{100}, std::size_t{5000}, std::size_t{70000}}) {
    const Credential credential(Credential::Kind::passphrase, std::string(size, 'p'));
    EXPECT_TRUE(is_secret_memory(credential.expose_bytes().data())) << size;
  }
}

TEST(SecretMemoryTest, IsFitForAnyType) {
  std::vector<SecretBytes> all;
  for (std::size_t size = 1; size <= 300; ++size)
    for (int i = 0; i < 3; ++i) {
      const auto address = reinterpret_cast<std::uintptr_t>(all.emplace_back(size).data());
      EXPECT_EQ(address % alignof(std::max_align_t), 0u) << size;
    }
}

TEST(SecretMemoryTest, IsLockedInAChildToo) {
  if (!mlock_is_real()) GTEST_SKIP() << "nothing can be locked in this build";
  const Key key = Key::random().value();
  const pid_t child = fork();
  if (child == 0) ::_exit(is_secret_memory(key.expose_key_bytes().data()) ? 0 : 1);
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(SecretMemoryTest, IsWipedWhenItIsGivenBack) {
  const char* left = nullptr;
  {
    const SecretBytes bytes(std::string(48, '\xa5'));
    left = bytes.expose().data();
  }
  // Still mapped: pieces this small stay for the next.
  std::array<char, 48> now{};
  const iovec to{now.data(), now.size()}, from{const_cast<char*>(left), now.size()};
  ASSERT_EQ(::process_vm_readv(::getpid(), &to, 1, &from, 1, 0), 48);
  EXPECT_EQ(std::search_n(now.begin(), now.end(), 4, '\xa5'), now.end());
}

// Of what OpenSSL computes from a key; in a process of its own, because it must be told before it is used.
[[noreturn]] void exit_well_if_openssl_is_in_secret_memory() {
  keep_openssl_in_secret_memory();
  std::_Exit(is_secret_memory(OPENSSL_malloc(16)) ? 0 : 1);
}

TEST(SecretMemoryDeathTest, HoldsWhatOpensslAllocates) {
  if (!mlock_is_real()) GTEST_SKIP() << "nothing can be locked in this build";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(exit_well_if_openssl_is_in_secret_memory(), ::testing::ExitedWithCode(0), "");
}

TEST(SecretMemoryTest, ManyThreadsAllocateAndFree) {
  std::vector<std::thread> threads;
  std::atomic<bool> mixed_up{false};
  for (unsigned thread = 0; thread < 4; ++thread)
    threads.emplace_back([&mixed_up, thread] {
      std::mt19937 random(thread);
      std::list<SecretBytes> held;
      for (int i = 0; i < 5000; ++i) {
        held.emplace_back(std::string(1 + random() % (i % 100 == 0 ? 100000 : 3000), static_cast<char>('a' + thread)));
        if (held.size() > 20) held.pop_front();
        for (char c : held.back().expose()) mixed_up = mixed_up || c != static_cast<char>('a' + thread);
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(mixed_up);
}

TEST(CredentialTest, MovesItsBytes) {
  Credential from(Credential::Kind::passphrase, "correct horse");
  const Credential to = std::move(from);
  EXPECT_EQ(to.expose_bytes(), "correct horse");
}

// ---- Hashes

std::string sha256_hex(std::string_view text) {
  Sha256 hash;
  hash.update(as_bytes(text));
  return to_hex(hash.finish());
}

TEST(Sha256Test, Fips180) {
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST(Sha256Test, MillionLettersInUnevenPieces) {
  Sha256 hash;
  const std::string letters(1000, 'a');
  for (std::size_t left = 1000000, piece = 1; left > 0;) {
    piece = std::min({left, piece * 7 % 1000 + 1});
    hash.update(as_bytes(letters).first(piece));
    left -= piece;
  }
  EXPECT_EQ(to_hex(hash.finish()), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(MacTest, Rfc4231) {  // HMAC pads short keys with zeros, as key_of() does
  Mac first = Mac::create(key_of("0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b")).value();
  const std::string expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
  EXPECT_EQ(to_hex(first.digest(as_bytes("Hi There"))), expected);
  EXPECT_EQ(to_hex(first.digest(as_bytes("Hi "), as_bytes("There"))), expected);
  EXPECT_EQ(to_hex(first.tag(as_bytes("Hi There"))), expected.substr(0, 32));
  Mac second = Mac::create(key_of("4a656665")).value();
  EXPECT_EQ(to_hex(second.digest(as_bytes("what do ya want "), as_bytes("for nothing?"))),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

TEST(MacTest, ManyThreadsGetTheSameAnswers) {
  const Mac mac = Mac::create(key_of("07")).value();
  std::vector<Digest> expected;
  expected.reserve(300);
  for (unsigned size = 0; size < 300; ++size) expected.push_back(mac.digest(as_bytes(std::string(size, 'x'))));
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int round = 0; round < 10; ++round)
        for (unsigned size = 0; size < 300; ++size)
          if (mac.digest(as_bytes(std::string(size, 'x'))) != expected[size]) ++wrong;
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(EqualTest, ConstantTimeEquality) {
  EXPECT_TRUE(equal_constant_time(as_bytes("same"), as_bytes("same")));
  EXPECT_FALSE(equal_constant_time(as_bytes("same"), as_bytes("sane")));
  EXPECT_FALSE(equal_constant_time(as_bytes("same"), as_bytes("same longer")));
  EXPECT_TRUE(equal_constant_time({}, {}));
}

// ---- Key derivation

TEST(DeriveTest, Rfc5869) {
  const std::string ikm(22, '\x0b');
  const std::string salt = from_hex("000102030405060708090a0b0c");
  const std::string info = from_hex("f0f1f2f3f4f5f6f7f8f9");
  EXPECT_EQ(to_hex(derive_key(as_bytes(ikm), as_bytes(salt), info).value()),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf");
  EXPECT_EQ(to_hex(derive_key(as_bytes(ikm), {}, "").value()),
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d");
}

TEST(DeriveTest, Rfc5869LongInputs) {
  std::string ikm, salt, info;
  for (int i = 0; i < 80; ++i) {
    ikm += static_cast<char>(i);
    salt += static_cast<char>(0x60 + i);
    info += static_cast<char>(0xb0 + i);
  }
  EXPECT_EQ(to_hex(derive_key(as_bytes(ikm), as_bytes(salt), info).value()),
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c");
}

TEST(DeriveTest, KeyAndItsBytesDeriveTheSame) {
  const Key key = key_of("42");
  EXPECT_TRUE(derive_key(key, as_bytes("salt"), "info").value() ==
              derive_key(ByteView(key.expose_key_bytes()), as_bytes("salt"), "info").value());
  EXPECT_FALSE(derive_key(key, as_bytes("salt"), "info").value() == derive_key(key, as_bytes("salt"), "other").value());
  EXPECT_EQ(derive_key(ByteView{}, {}, "info").error().code, Errc::invalid);
}

TEST(DeriveTest, Rfc7914) {
  EXPECT_EQ(to_hex(derive_key_from_passphrase("password", as_bytes("NaCl"), {10, 8, 16}).value()),
            "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162");
  EXPECT_EQ(to_hex(derive_key_from_passphrase("pleaseletmein", as_bytes("SodiumChloride"), {14, 8, 1}).value()),
            "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2");
}

TEST(DeriveTest, ScryptRefusesCostsOutOfBounds) {
  for (ScryptCost cost : {ScryptCost{9, 8, 1}, ScryptCost{23, 8, 1}, ScryptCost{255, 255, 255}, ScryptCost{10, 0, 1},
                          ScryptCost{10, 33, 1}, ScryptCost{10, 8, 0}, ScryptCost{10, 8, 17}})
    EXPECT_EQ(derive_key_from_passphrase("password", as_bytes("salt"), cost).error().code, Errc::invalid);
  EXPECT_EQ(derive_key_from_passphrase("", as_bytes("salt"), {10, 8, 1}).error().code, Errc::invalid);
}

// ---- The ciphers themselves, with nonces from the standards

struct AeadVector {
  const char* algorithm;
  const char* key;
  const char* nonce;
  const char* authenticated;
  const char* plain;
  const char* sealed;
  const char* tag;
};

const AeadVector kVectors[] = {
    // McGrew and Viega, The Galois/Counter Mode of Operation (submission to NIST), test cases 13 to 16.
    {"AES-256-GCM", "", "", "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"},
    {"AES-256-GCM", "", "", "", "00000000000000000000000000000000", "cea7403d4d606b6e074ec5d3baf39d18",
     "d0d1c8a799996bf0265b98b5d48ab919"},
    {"AES-256-GCM", "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888", "",
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657"
     "ba637b391aafd255",
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0a"
     "bcc9f662898015ad",
     "b094dac5d93471bdec1a502270e3cc6c"},
    {"AES-256-GCM", "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
     "feedfacedeadbeeffeedfacedeadbeefabaddad2",
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657"
     "ba637b39",
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0a"
     "bcc9f662",
     "76fc6ece0f4e1768cddf8853bb2d551b"},
    // NIST CAVS gcmEncryptExtIV256, no plaintext: GMAC.
    {"AES-256-GCM", "78dc4e0aaf52d935c3c01eea57428f00ca1fd475f5da86a49c8dd73d68c8e223", "d79cf22d504cc793c3fb6c8a",
     "b96baa8c1c75a671bfb2d08d06be5f36", "", "", "3e5d486aa2e30b22e040b85723a06e76"},
    // RFC 8439, section 2.8.2.
    {"ChaCha20-Poly1305", "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
     "070000004041424344454647", "50515253c0c1c2c3c4c5c6c7",
     "4c616469657320616e642047656e746c656d656e206f662074686520636c617373206f66202739393a204966204920636f756c64206f6666"
     "657220796f75206f6e6c79206f6e652074697020666f7220746865206675747572652c2073756e73637265656e20776f756c642062652069"
     "742e",
     "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b1a71de0a9e060b29"
     "05d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9de576d26586cec64b"
     "6116",
     "1ae10b594f09e26a7e902ecbd0600691"},
};

class CipherPoolTest : public ::testing::TestWithParam<AeadVector> {};

TEST_P(CipherPoolTest, KnownAnswer) {
  const AeadVector& vector = GetParam();
  auto cipher = CipherPool::create(vector.algorithm, key_of(vector.key)).value();
  const Nonce nonce = array_of<12>(vector.nonce);
  const std::string authenticated = from_hex(vector.authenticated);
  const std::string plain = from_hex(vector.plain);
  for (int round = 0; round < 3; ++round) {  // one context, changing direction
    std::string sealed(plain.size(), '\0');
    Tag tag{};
    ASSERT_TRUE(cipher->seal(nonce, {as_bytes(authenticated)}, as_bytes(plain), writable(sealed), tag));
    EXPECT_EQ(to_hex(sealed), vector.sealed);
    EXPECT_EQ(to_hex(tag), vector.tag);
    std::string opened(plain.size(), '\0');
    ASSERT_TRUE(cipher->open(nonce, {as_bytes(authenticated)}, as_bytes(sealed), writable(opened), tag));
    EXPECT_EQ(to_hex(opened), vector.plain);
    tag[round] ^= std::byte{1};
    EXPECT_EQ(cipher->open(nonce, {as_bytes(authenticated)}, as_bytes(sealed), writable(opened), tag).error().code,
              Errc::corrupt);
    EXPECT_EQ(opened, std::string(plain.size(), '\0')) << "unverified bytes must not be left behind";
  }
}

TEST_P(CipherPoolTest, PiecesCountAsTheirConcatenation) {
  const AeadVector& vector = GetParam();
  auto cipher = CipherPool::create(vector.algorithm, key_of(vector.key)).value();
  const std::string authenticated = from_hex(vector.authenticated);
  const ByteView all = as_bytes(authenticated);
  const std::string plain = from_hex(vector.plain);
  std::string sealed(plain.size(), '\0');
  Tag tag{};
  const std::size_t third = all.size() / 3;
  ASSERT_TRUE(cipher->seal(array_of<12>(vector.nonce), {all.first(third), {}, all.subspan(third)}, as_bytes(plain),
                           writable(sealed), tag));
  EXPECT_EQ(to_hex(tag), vector.tag);
}

INSTANTIATE_TEST_SUITE_P(Standards, CipherPoolTest, ::testing::ValuesIn(kVectors));

// ---- BlockCipher

class BlockCipherTest : public ::testing::TestWithParam<Suite> {
 protected:
  BlockCipher make(std::string_view key = "0123456789") { return BlockCipher::create(GetParam(), key_of(key)).value(); }
};

std::string pattern(std::size_t size) {
  std::string text(size, '\0');
  for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 131 + i / 256);
  return text;
}

TEST_P(BlockCipherTest, OpensWhatItSealed) {
  const BlockCipher cipher = make();
  for (std::size_t size : {0u, 1u, 15u, 16u, 17u, 4096u, 16384u, 65537u}) {
    const std::string plain = pattern(size);
    std::string sealed(size, '\0'), opened(size, '\0');
    Tag tag{};
    ASSERT_TRUE(cipher.seal(size, as_bytes("context"), as_bytes(plain), writable(sealed), tag));
    EXPECT_EQ(sealed == plain, size == 0 || GetParam() == Suite::plain_gmac);
    ASSERT_TRUE(cipher.open(size, as_bytes("context"), as_bytes(sealed), writable(opened), tag));
    EXPECT_EQ(opened, plain);
  }
}

TEST_P(BlockCipherTest, WorksInPlace) {
  const BlockCipher cipher = make();
  const std::string plain = pattern(5000);
  std::string apart(plain.size(), '\0'), in_place = plain;
  Tag tag_apart{}, tag_in_place{};
  ASSERT_TRUE(cipher.seal(7, as_bytes("c"), as_bytes(plain), writable(apart), tag_apart));
  ASSERT_TRUE(cipher.seal(7, as_bytes("c"), as_bytes(in_place), writable(in_place), tag_in_place));
  EXPECT_EQ(apart, in_place);
  EXPECT_EQ(tag_apart, tag_in_place);
  ASSERT_TRUE(cipher.open(7, as_bytes("c"), as_bytes(in_place), writable(in_place), tag_in_place));
  EXPECT_EQ(in_place, plain);
}

TEST_P(BlockCipherTest, EveryChangedByteIsNoticed) {
  const BlockCipher cipher = make();
  const std::string plain = pattern(100);
  std::string sealed(plain.size(), '\0'), opened(plain.size(), '\0');
  Tag tag{};
  ASSERT_TRUE(cipher.seal(1, as_bytes("context"), as_bytes(plain), writable(sealed), tag));
  const auto opens = [&](std::uint64_t counter, std::string_view context, const std::string& bytes, const Tag& with) {
    return cipher.open(counter, as_bytes(context), as_bytes(bytes), writable(opened), with).has_value();
  };
  for (std::size_t i = 0; i < sealed.size(); ++i) {
    std::string changed = sealed;
    changed[i] = static_cast<char>(changed[i] ^ 0x10);
    EXPECT_FALSE(opens(1, "context", changed, tag)) << i;
  }
  for (std::byte& b : tag) {
    b ^= std::byte{0x80};
    EXPECT_FALSE(opens(1, "context", sealed, tag));
    b ^= std::byte{0x80};
  }
  EXPECT_FALSE(opens(2, "context", sealed, tag));
  EXPECT_FALSE(opens(std::uint64_t{1} << 63 | 1, "context", sealed, tag));
  EXPECT_FALSE(opens(1, "contexT", sealed, tag));
  EXPECT_FALSE(opens(1, "", sealed, tag));
  EXPECT_TRUE(opens(1, "context", sealed, tag));
}

TEST_P(BlockCipherTest, BorderBetweenContextAndDataIsAuthenticated) {
  const BlockCipher cipher = make();
  std::string data = "bcd";
  Tag tag{};
  ASSERT_TRUE(cipher.seal(1, as_bytes("a"), as_bytes(data), writable(data), tag));
  std::string opened(2, '\0');
  EXPECT_FALSE(cipher.open(1, as_bytes("ab"), as_bytes(data).subspan(1), writable(opened), tag));
}

TEST_P(BlockCipherTest, AnotherKeyDoesNotOpen) {
  std::string data = pattern(64);
  Tag tag{};
  ASSERT_TRUE(make("01").seal(1, {}, as_bytes(data), writable(data), tag));
  EXPECT_EQ(make("02").open(1, {}, as_bytes(data), writable(data), tag).error().code, Errc::corrupt);
}

TEST_P(BlockCipherTest, SizesMustAgree) {
  const BlockCipher cipher = make();
  std::string small(10, 'x');
  const std::string large(11, 'x');
  Tag tag{};
  EXPECT_EQ(cipher.seal(1, {}, as_bytes(large), writable(small), tag).error().code, Errc::invalid);
  EXPECT_EQ(cipher.open(1, {}, as_bytes(large), writable(small), tag).error().code, Errc::invalid);
}

TEST_P(BlockCipherTest, FourThreadsShareOneCipher) {
  const BlockCipher cipher = make();
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (unsigned i = 0; i < 500; ++i) {
        const std::uint64_t counter = std::uint64_t{i} * 4 + t;
        const std::string plain = pattern(i % 97 + t * 1000);
        std::string data = plain;
        Tag tag{};
        if (!cipher.seal(counter, as_bytes("c"), as_bytes(data), writable(data), tag)) ++wrong;
        if (cipher.open(counter + 1, as_bytes("c"), as_bytes(std::string(data)), writable(data), tag)) ++wrong;
        data = plain;
        if (!cipher.seal(counter, as_bytes("c"), as_bytes(data), writable(data), tag)) ++wrong;
        if (!cipher.open(counter, as_bytes("c"), as_bytes(data), writable(data), tag) || data != plain) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

INSTANTIATE_TEST_SUITE_P(Suites, BlockCipherTest,
                         ::testing::Values(Suite::aes_256_gcm, Suite::chacha20_poly1305, Suite::plain_gmac));

TEST(SuiteTest, NumbersOnDiskAreFixed) {
  EXPECT_FALSE(is_known_suite(0));
  EXPECT_TRUE(is_known_suite(1));
  EXPECT_TRUE(is_known_suite(2));
  EXPECT_TRUE(is_known_suite(3));
  EXPECT_FALSE(is_known_suite(4));
  EXPECT_EQ(BlockCipher::create(static_cast<Suite>(4), key_of("")).error().code, Errc::wrong_version);
}

TEST(SuiteTest, NonceIsTheCounterLittleEndian) {
  const Key key = key_of("0123456789");
  const BlockCipher blocks = BlockCipher::create(Suite::aes_256_gcm, key).value();
  auto raw = CipherPool::create("AES-256-GCM", key).value();
  std::string a = pattern(32), b = pattern(32);
  Tag tag_a{}, tag_b{};
  ASSERT_TRUE(blocks.seal(0x0102030405060708, as_bytes("c"), as_bytes(a), writable(a), tag_a));
  ASSERT_TRUE(raw->seal(array_of<12>("080706050403020100000000"), {as_bytes("c")}, as_bytes(b), writable(b), tag_b));
  EXPECT_EQ(a, b);
  EXPECT_EQ(tag_a, tag_b);
}

// ---- Aead

class AeadTest : public ::testing::TestWithParam<NonceSource> {
 protected:
  Aead aead_ = Aead::create(key_of("77"), GetParam()).value();
};

TEST_P(AeadTest, OpensWhatItSealed) {
  for (std::size_t size : {0u, 1u, 100u, 5000u}) {
    const std::string sealed = aead_.seal(as_bytes("c"), as_bytes(pattern(size))).value();
    EXPECT_EQ(sealed.size(), size + Aead::kOverhead);
    EXPECT_EQ(aead_.open(as_bytes("c"), as_bytes(sealed)).value(), pattern(size));
  }
}

TEST_P(AeadTest, EveryChangedByteIsNoticed) {
  const std::string sealed = aead_.seal(as_bytes("c"), as_bytes("some record")).value();
  for (std::size_t i = 0; i < sealed.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string changed = sealed;
      changed[i] = static_cast<char>(changed[i] ^ (1 << bit));
      EXPECT_EQ(aead_.open(as_bytes("c"), as_bytes(changed)).error().code, Errc::corrupt) << i;
    }
  }
}

TEST_P(AeadTest, EveryOtherLengthIsNoticed) {
  const std::string sealed = aead_.seal(as_bytes("c"), as_bytes("some record")).value();
  for (std::size_t size = 0; size < sealed.size(); ++size)
    EXPECT_EQ(aead_.open(as_bytes("c"), as_bytes(sealed).first(size)).error().code, Errc::corrupt) << size;
  EXPECT_EQ(aead_.open(as_bytes("c"), as_bytes(sealed + '\0')).error().code, Errc::corrupt);
}

TEST_P(AeadTest, AnotherContextOrKeyDoesNotOpen) {
  const std::string sealed = aead_.seal(as_bytes("c"), as_bytes("some record")).value();
  EXPECT_EQ(aead_.open(as_bytes("d"), as_bytes(sealed)).error().code, Errc::corrupt);
  const Aead other = Aead::create(key_of("78"), GetParam()).value();
  EXPECT_EQ(other.open(as_bytes("c"), as_bytes(sealed)).error().code, Errc::corrupt);
}

TEST_P(AeadTest, NoNonceIsUsedTwice) {
  std::vector<std::set<std::string>> nonces(4);
  std::vector<std::thread> threads;
  threads.reserve(nonces.size());
  for (auto& own : nonces) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) own.insert(aead_.seal({}, {}).value().substr(0, 12));
    });
  }
  for (auto& thread : threads) thread.join();
  std::set<std::string> all;
  for (const auto& own : nonces) all.insert(own.begin(), own.end());
  EXPECT_EQ(all.size(), 8000u);
}

TEST_P(AeadTest, KnownAnswer) {  // test case 16 of McGrew and Viega
  const Aead aead =
      Aead::create(key_of("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"), GetParam()).value();
  const AeadVector& vector = kVectors[3];
  const std::string sealed = from_hex(std::string(vector.nonce) + vector.sealed + vector.tag);
  EXPECT_EQ(to_hex(aead.open(as_bytes(from_hex(vector.authenticated)), as_bytes(sealed)).value()), vector.plain);
}

TEST_P(AeadTest, MovedToGoesOn) {
  const std::string sealed = aead_.seal({}, as_bytes("record")).value();
  Aead moved = std::move(aead_);
  EXPECT_EQ(moved.open({}, as_bytes(sealed)).value(), "record");
}

INSTANTIATE_TEST_SUITE_P(Nonces, AeadTest, ::testing::Values(NonceSource::random, NonceSource::counting));

TEST(AeadNonceTest, CountingStartsElsewhereEachTime) {
  std::set<std::string> starts;
  for (int i = 0; i < 50; ++i)
    starts.insert(Aead::create(key_of("1"), NonceSource::counting).value().seal({}, {}).value().substr(0, 12));
  EXPECT_GT(starts.size(), 45u);  // 50 draws of 32 bits: a repetition has odds of one in three million
}

// ---- KeyWrap

TEST(KeyWrapTest, GivesTheKeyBack) {
  const KeyWrap wrap = KeyWrap::create(key_of("01"), "purpose").value();
  const Key key = Key::random().value();
  const std::string wrapped = wrap.wrap(as_bytes("context"), key).value();
  EXPECT_EQ(wrapped.size(), KeyWrap::kWrappedSize);
  EXPECT_EQ(wrapped.size(), 92u);
  EXPECT_TRUE(wrap.unwrap(as_bytes("context"), as_bytes(wrapped)).value() == key);
  EXPECT_EQ(wrap.unwrap(as_bytes("another"), as_bytes(wrapped)).error().code, Errc::corrupt);
  EXPECT_NE(wrapped.substr(32), wrap.wrap(as_bytes("context"), key).value().substr(32));
}

TEST(KeyWrapTest, EveryChangedByteIsNoticed) {
  const KeyWrap wrap = KeyWrap::create(key_of("01"), "purpose").value();
  const std::string wrapped = wrap.wrap({}, key_of("02")).value();
  for (std::size_t i = 0; i < wrapped.size(); ++i) {
    std::string changed = wrapped;
    changed[i] = static_cast<char>(changed[i] ^ 1);
    EXPECT_EQ(wrap.unwrap({}, as_bytes(changed)).error().code, i < 32 ? Errc::wrong_secret : Errc::corrupt) << i;
  }
  EXPECT_EQ(wrap.unwrap({}, as_bytes(wrapped + '\0')).error().code, Errc::corrupt);
  EXPECT_EQ(wrap.unwrap({}, as_bytes(wrapped).first(91)).error().code, Errc::corrupt);
  EXPECT_EQ(wrap.unwrap({}, {}).error().code, Errc::corrupt);
}

TEST(KeyWrapTest, AnotherKeyOrPurposeIsToldFromDamage) {
  const std::string wrapped = KeyWrap::create(key_of("01"), "purpose").value().wrap({}, key_of("02")).value();
  const KeyWrap other_key = KeyWrap::create(key_of("03"), "purpose").value();
  const KeyWrap other_purpose = KeyWrap::create(key_of("01"), "another").value();
  EXPECT_EQ(other_key.unwrap({}, as_bytes(wrapped)).error().code, Errc::wrong_secret);
  EXPECT_EQ(other_purpose.unwrap({}, as_bytes(wrapped)).error().code, Errc::wrong_secret);
}

// The attack the commitment is for: a sealed part that another key made, under this key's commitment.
TEST(KeyWrapTest, CommitmentDoesNotCarryAnotherKeysCiphertext) {
  const KeyWrap victim = KeyWrap::create(key_of("01"), "purpose").value();
  const KeyWrap attacker = KeyWrap::create(key_of("02"), "purpose").value();
  const std::string forged =
      victim.wrap({}, key_of("03")).value().substr(0, 32) + attacker.wrap({}, key_of("03")).value().substr(32);
  EXPECT_EQ(victim.unwrap({}, as_bytes(forged)).error().code, Errc::corrupt);
  EXPECT_EQ(attacker.unwrap({}, as_bytes(forged)).error().code, Errc::wrong_secret);
}

}  // namespace
}  // namespace rekeyfs::crypto
