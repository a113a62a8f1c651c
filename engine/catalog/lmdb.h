// RAII for LMDB: its rules (one environment per file and process, short transactions) kept by types.
//
// Always synchronous (never NOSYNC or WRITEMAP). LMDB trusts its file: walk it in a child process first
// (verify.h). Errors name the file. Once a commit has failed at its last page LMDB refuses everything, reading too,
// until its environment is closed; the next transaction then opens it anew. Thread-safe.
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
  // Closes and opens it anew if it was opened for reading only. Nothing of a transaction may be in use by the caller.
  Status make_writable();
  LmdbEnvironment(LmdbEnvironment&& other) noexcept;
  LmdbEnvironment& operator=(LmdbEnvironment&&) = delete;
  ~LmdbEnvironment();

 private:
  friend class LmdbReadTxn;
  friend class LmdbWriteTxn;
  struct State;
  using InUse = std::shared_lock<SharedMutex>;  // by a transaction: it is not closed meanwhile
  explicit LmdbEnvironment(std::unique_ptr<State> state);
  Result<std::pair<MDB_txn*, InUse>> begin(unsigned flags, std::string_view doing) const;

  std::unique_ptr<State> state_;
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
  LmdbReadTxn(MDB_txn* txn, unsigned dbi, LmdbEnvironment::InUse in_use) : in_use_(std::move(in_use)), txn_(txn), dbi_(dbi) {}
  LmdbEnvironment::InUse in_use_;
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
  LmdbWriteTxn(MDB_txn* txn, unsigned dbi, LmdbEnvironment::InUse in_use) : in_use_(std::move(in_use)), txn_(txn), dbi_(dbi) {}
  LmdbEnvironment::InUse in_use_;
  MDB_txn* txn_;
  unsigned dbi_;
};

}  // namespace rekeyfs::catalog
