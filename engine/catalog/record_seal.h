// RecordSeal: encrypts each catalog record under its mount's key, bound to the record's key, for LMDB. RecordDigest: a
// digest over all records, which detects a single record restored from an older catalog.
//
// The digest is a multiset hash (Clarke et al., "Incremental Multiset Hash Functions", 2003, MSet-Add-Hash with
// a keyed hash): the sum of HMAC-SHA256 over the records in (Z/2^64)^4, so that one changed record costs two hashes.
#pragma once

#include "engine/catalog/epochs.h"

namespace rekeyfs::catalog {

class RecordSeal {
 public:
  static Result<RecordSeal> create(const crypto::Key& root, const Uuid& store, const Epochs& epochs);

  Result<std::string> seal(std::string_view key, std::string_view value) const;
  Result<std::string> open(std::string_view key, std::string_view sealed) const;
  // Records that must be readable before any epoch is known: epochs and the super record.
  Result<std::string> seal_by_root(std::string_view key, std::string_view value) const;
  Result<std::string> open_by_root(std::string_view key, std::string_view sealed) const;
  static bool is_by_root(std::string_view key);

  using MultisetDigest = std::array<std::uint64_t, 4>;
  void add(MultisetDigest& digest, std::string_view key, std::string_view sealed) const;
  void subtract(MultisetDigest& digest, std::string_view key, std::string_view sealed) const;

 private:
  RecordSeal(const Uuid& store, const Epochs& epochs, crypto::Aead by_root, crypto::Mac mac)
      : store_(store), epochs_(epochs), by_root_(std::move(by_root)), mac_(std::move(mac)) {}
  MultisetDigest hash(std::string_view key, std::string_view sealed) const;
  std::string context_of(std::string_view key) const;

  Uuid store_;
  const Epochs& epochs_;
  crypto::Aead by_root_;
  crypto::Mac mac_;
};

// Table::super: the state of the last checkpoint.
struct SuperRecord {
  std::uint64_t checkpoint = 0;
  std::uint64_t next_ino = 2;
  std::uint64_t next_layer = 1;
  std::uint64_t journal_first = 1;  // segment that recovery starts from
  RecordSeal::MultisetDigest digest{};
  std::string encode() const;
  static Result<SuperRecord> decode(std::string_view bytes);
};

}  // namespace rekeyfs::catalog
