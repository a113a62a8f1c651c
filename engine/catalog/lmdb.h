// RAII for LMDB: its rules (one environment per file and process, short transactions) kept by types.
//
// Always synchronous (never NOSYNC or WRITEMAP). LMDB trusts its file: walk it in a child process first
// (verify.h). Errors name the file.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "engine/base/bytes.h"
#include "engine/base/result.h"

struct MDB_env;
struct MDB_txn;

namespace rekeyfs::catalog {

class LmdbEnvironment {
 public:
  enum class Access { read_only, read_write };
  static Result<LmdbEnvironment> open(const std::string& directory, Access access);
  LmdbEnvironment(LmdbEnvironment&& other) noexcept;
  LmdbEnvironment& operator=(LmdbEnvironment&&) = delete;
  ~LmdbEnvironment();

 private:
  friend class LmdbReadTxn;
  friend class LmdbWriteTxn;
  LmdbEnvironment(MDB_env* env, unsigned dbi) : env_(env), dbi_(dbi) {}
  MDB_env* env_;
  unsigned dbi_;
};

// A snapshot. Views it hands out live as long as it does.
class LmdbReadTxn {
 public:
  static Result<LmdbReadTxn> begin(const LmdbEnvironment& env);
  LmdbReadTxn(LmdbReadTxn&& other) noexcept;
  LmdbReadTxn& operator=(LmdbReadTxn&&) = delete;
  ~LmdbReadTxn();

  Result<std::optional<std::string_view>> get(std::string_view key) const;
  // Every pair from the first key at or after `from`, in order, until `visit` returns false.
  Status scan(std::string_view from, const std::function<bool(std::string_view key, std::string_view value)>& visit) const;

 private:
  LmdbReadTxn(MDB_txn* txn, unsigned dbi) : txn_(txn), dbi_(dbi) {}
  MDB_txn* txn_;
  unsigned dbi_;
};

// The one writer; aborted unless committed.
class LmdbWriteTxn {
 public:
  static Result<LmdbWriteTxn> begin(const LmdbEnvironment& env);
  LmdbWriteTxn(LmdbWriteTxn&& other) noexcept;
  LmdbWriteTxn& operator=(LmdbWriteTxn&&) = delete;
  ~LmdbWriteTxn();

  Result<std::optional<std::string_view>> get(std::string_view key) const;
  Status put(std::string_view key, std::string_view value);
  Status erase(std::string_view key);  // fine if it is missing
  Status commit();                     // durable when it returns

 private:
  LmdbWriteTxn(MDB_txn* txn, unsigned dbi) : txn_(txn), dbi_(dbi) {}
  MDB_txn* txn_;
  unsigned dbi_;
};

}  // namespace rekeyfs::catalog
