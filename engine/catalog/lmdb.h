// RAII types for LMDB that enforce its rules (one environment per file and process, short transactions).
//
// Always synchronous (never NOSYNC or WRITEMAP). LMDB trusts its file, so verify it in a child process first
// (verify.h). Error messages name the file. After a commit fails at its last page, LMDB refuses everything, including
// reads, until the environment is closed; the next transaction then reopens it. Thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <string>

#include "engine/base/bytes.h"
#include "engine/base/mutex.h"
#include "engine/base/result.h"

struct MDB_env;
struct MDB_txn;

namespace rekeyfs::catalog {

class LmdbEnvironment {
 public:
  enum class Access { read_only, read_write };
  static Result<LmdbEnvironment> open(const std::string& directory, Access access);
  // Reopens an environment that was opened read-only. The caller must not have an open transaction.
  Status make_writable();
  LmdbEnvironment(LmdbEnvironment&& other) noexcept;
  LmdbEnvironment& operator=(LmdbEnvironment&&) = delete;
  ~LmdbEnvironment();

 private:
  friend class LmdbReadTxn;
  friend class LmdbWriteTxn;
  struct State;
  using InUse = std::shared_lock<SharedMutex>;  // held by a transaction: keeps the environment open
  explicit LmdbEnvironment(std::unique_ptr<State> state);
  Result<std::pair<MDB_txn*, InUse>> begin(unsigned flags, std::string_view doing) const;

  std::unique_ptr<State> state_;
};

// A snapshot. The views it returns are valid as long as it exists.
class LmdbReadTxn {
 public:
  static Result<LmdbReadTxn> begin(const LmdbEnvironment& env);
  LmdbReadTxn(LmdbReadTxn&& other) noexcept;
  LmdbReadTxn& operator=(LmdbReadTxn&&) = delete;
  ~LmdbReadTxn();

  Result<std::optional<std::string_view>> get(std::string_view key) const;
  // Visits all pairs from the first key at or after `from`, in order, until `visit` returns false.
  Status scan(std::string_view from, const std::function<bool(std::string_view key, std::string_view value)>& visit) const;

 private:
  LmdbReadTxn(MDB_txn* txn, unsigned dbi, LmdbEnvironment::InUse in_use) : in_use_(std::move(in_use)), txn_(txn), dbi_(dbi) {}
  LmdbEnvironment::InUse in_use_;
  MDB_txn* txn_;
  unsigned dbi_;
};

// The only write transaction; aborted unless committed.
class LmdbWriteTxn {
 public:
  static Result<LmdbWriteTxn> begin(const LmdbEnvironment& env);
  LmdbWriteTxn(LmdbWriteTxn&& other) noexcept;
  LmdbWriteTxn& operator=(LmdbWriteTxn&&) = delete;
  ~LmdbWriteTxn();

  Result<std::optional<std::string_view>> get(std::string_view key) const;
  Status put(std::string_view key, std::string_view value);
  Status erase(std::string_view key);  // no-op if it is missing
  Status commit();                     // durable when it returns

 private:
  LmdbWriteTxn(MDB_txn* txn, unsigned dbi, LmdbEnvironment::InUse in_use) : in_use_(std::move(in_use)), txn_(txn), dbi_(dbi) {}
  LmdbEnvironment::InUse in_use_;
  MDB_txn* txn_;
  unsigned dbi_;
};

}  // namespace rekeyfs::catalog
