#include "engine/catalog/record_seal.h"

#include "engine/catalog/tables.h"

namespace rekeyfs::catalog {
namespace {
constexpr std::string_view kPurpose = "rekeyfs catalog";
}

Result<RecordSeal> RecordSeal::create(const crypto::Key& root, const Uuid& store, const Epochs& epochs) {
  RK_TRY_ASSIGN(const crypto::Key seal_key, crypto::derive_key(root, store, "rekeyfs catalog by root"));
  RK_TRY_ASSIGN(const crypto::Key mac_key, crypto::derive_key(root, store, "rekeyfs catalog digest"));
  RK_TRY_ASSIGN(crypto::Aead by_root, crypto::Aead::create(seal_key, crypto::NonceSource::random));
  RK_TRY_ASSIGN(crypto::Mac mac, crypto::Mac::create(mac_key));
  return RecordSeal(store, epochs, std::move(by_root), std::move(mac));
}

std::string RecordSeal::context_of(std::string_view key) const {
  Writer out;
  out.put_raw(store_).put_raw(as_bytes(key));
  return out.take();
}

bool RecordSeal::is_by_root(std::string_view key) {
  return !key.empty() && (key[0] == static_cast<char>(Table::epoch) || key[0] == static_cast<char>(Table::super));
}

Result<std::string> RecordSeal::seal(std::string_view key, std::string_view value) const {
  if (is_by_root(key)) return seal_by_root(key, value);
  const EpochId epoch = epochs_.current();
  RK_TRY_ASSIGN(const auto aead, epochs_.aead_of(epoch, kPurpose));
  RK_TRY_ASSIGN(const std::string sealed, aead->seal(as_bytes(context_of(key)), as_bytes(value)));
  Writer out;
  out.put(epoch.value()).put_raw(as_bytes(sealed));
  return out.take();
}

Result<std::string> RecordSeal::open(std::string_view key, std::string_view sealed) const {
  if (is_by_root(key)) return open_by_root(key, sealed);
  Reader in(sealed);
  const EpochId epoch{in.get<std::uint32_t>()};
  if (!in.ok()) return fail(Errc::corrupt, "a catalog record is too short");
  RK_TRY_ASSIGN(const auto aead, epochs_.aead_of(epoch, kPurpose));
  return aead->open(as_bytes(context_of(key)), in.get_raw(in.left()));
}

Result<std::string> RecordSeal::seal_by_root(std::string_view key, std::string_view value) const {
  return by_root_.seal(as_bytes(context_of(key)), as_bytes(value));
}
Result<std::string> RecordSeal::open_by_root(std::string_view key, std::string_view sealed) const {
  return by_root_.open(as_bytes(context_of(key)), as_bytes(sealed));
}

RecordSeal::MultisetDigest RecordSeal::hash(std::string_view key, std::string_view sealed) const {
  // The tag at the end authenticates the whole record under its epoch and nonce, which are at its front.
  Writer out;
  out.put_string(key).put_raw(as_bytes(sealed.substr(0, 16)));
  const std::string_view end = sealed.substr(sealed.size() - std::min<std::size_t>(sealed.size(), 16));
  const crypto::Digest digest = mac_.digest(as_bytes(out.text()), as_bytes(end));
  Reader in(digest);
  MultisetDigest sum;
  for (std::uint64_t& part : sum) part = in.get<std::uint64_t>();
  return sum;
}

void RecordSeal::add(MultisetDigest& digest, std::string_view key, std::string_view sealed) const {
  const MultisetDigest one = hash(key, sealed);
  for (std::size_t i = 0; i < digest.size(); ++i) digest[i] += one[i];
}
void RecordSeal::subtract(MultisetDigest& digest, std::string_view key, std::string_view sealed) const {
  const MultisetDigest one = hash(key, sealed);
  for (std::size_t i = 0; i < digest.size(); ++i) digest[i] -= one[i];
}

std::string SuperRecord::encode() const {
  Writer out;
  out.put(checkpoint).put(next_ino).put(next_layer).put(journal_first);
  for (std::uint64_t part : digest) out.put(part);
  return out.take();
}

Result<SuperRecord> SuperRecord::decode(std::string_view bytes) {
  Reader in(bytes);
  SuperRecord super;
  super.checkpoint = in.get<std::uint64_t>();
  super.next_ino = in.get<std::uint64_t>();
  super.next_layer = in.get<std::uint64_t>();
  super.journal_first = in.get<std::uint64_t>();
  for (std::uint64_t& part : super.digest) part = in.get<std::uint64_t>();
  if (!in.finished()) return fail(Errc::corrupt, "the catalog's super record is malformed");
  return super;
}

}  // namespace rekeyfs::catalog
