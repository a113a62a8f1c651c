#include "engine/catalog/lmdb.h"

#include <lmdb.h>

#include <cerrno>
#include <utility>

namespace rekeyfs::catalog {
namespace {

// Address space only: the file grows with the number of images, about 1 KiB each.
constexpr std::size_t kMapSize = std::size_t{64} << 30;

Error lmdb_error(int code, std::string_view doing) {
  if (code == MDB_MAP_FULL) return {Errc::no_space, std::string(doing) + ": the catalog has reached its largest size"};
  if (code > 0) return error_from_errno(code, doing);
  return {Errc::corrupt, std::string(doing) + ": " + mdb_strerror(code) + "; run 'rekeyfs check' on the store"};
}

MDB_val to_val(std::string_view text) { return {text.size(), const_cast<char*>(text.data())}; }
std::string_view to_view(const MDB_val& val) { return {static_cast<const char*>(val.mv_data), val.mv_size}; }

Result<std::optional<std::string_view>> get_in(MDB_txn* txn, unsigned dbi, std::string_view key) {
  MDB_val key_val = to_val(key);
  MDB_val value{};
  const int code = mdb_get(txn, dbi, &key_val, &value);
  if (code == MDB_NOTFOUND) return std::optional<std::string_view>{};
  if (code != 0) return fail(lmdb_error(code, "read the catalog"));
  return std::optional(to_view(value));
}

}  // namespace

struct LmdbEnvironment::State {
  State(std::string where, Access how) : directory(std::move(where)), access(how) {}
  ~State() { close(); }
  Status open();
  void close() {
    if (env) mdb_env_close(env);
    env = nullptr;
  }
  Status reopen();

  const std::string directory;
  Access access;
  SharedMutex mutex;       // shared by transactions
  MDB_env* env = nullptr;  // null if reopening failed
  unsigned dbi = 0;
};

Status LmdbEnvironment::State::open() {
  if (const int code = mdb_env_create(&env)) return fail(lmdb_error(code, "open the catalog"));
  if (const int code = mdb_env_set_mapsize(env, kMapSize)) return fail(lmdb_error(code, "map the catalog"));
  if (const int code = mdb_env_set_maxreaders(env, 512)) return fail(lmdb_error(code, "open the catalog"));
  // Opened for reading only: must not touch the lock file of a store that may not be opened or written.
  const bool read_only = access == Access::read_only;
  const unsigned flags = MDB_NOTLS | MDB_NORDAHEAD | (read_only ? MDB_RDONLY | MDB_NOLOCK : 0u);
  if (const int code = mdb_env_open(env, directory.c_str(), flags, 0600))
    return fail(lmdb_error(code, "open the catalog in " + directory));
  MDB_txn* txn = nullptr;
  if (const int code = mdb_txn_begin(env, nullptr, read_only ? MDB_RDONLY : 0u, &txn))
    return fail(lmdb_error(code, "open the catalog in " + directory));
  if (const int code = mdb_dbi_open(txn, nullptr, 0, &dbi)) {
    mdb_txn_abort(txn);
    return fail(lmdb_error(code, "open the catalog in " + directory));
  }
  if (const int code = mdb_txn_commit(txn)) return fail(lmdb_error(code, "open the catalog in " + directory));
  return {};
}

Status LmdbEnvironment::State::reopen() {
  UniqueLock nobody_uses_it(mutex);
  MDB_txn* txn = nullptr;
  if (env && mdb_txn_begin(env, nullptr, MDB_RDONLY, &txn) == 0) {  // another thread has reopened it
    mdb_txn_abort(txn);
    return {};
  }
  close();
  const Status opened = open();
  if (!opened) close();
  return opened;
}

Result<LmdbEnvironment> LmdbEnvironment::open(const std::string& directory, Access access) {
  LmdbEnvironment environment(std::make_unique<State>(directory, access));
  RK_TRY(environment.state_->open());
  return environment;
}

Status LmdbEnvironment::make_writable() {
  UniqueLock nobody_uses_it(state_->mutex);
  if (state_->access == Access::read_write) return {};
  state_->close();
  state_->access = Access::read_write;
  const Status opened = state_->open();
  if (!opened) state_->close();
  return opened;
}

LmdbEnvironment::LmdbEnvironment(std::unique_ptr<State> state) : state_(std::move(state)) {}
LmdbEnvironment::LmdbEnvironment(LmdbEnvironment&& other) noexcept = default;
LmdbEnvironment::~LmdbEnvironment() = default;

Result<std::pair<MDB_txn*, LmdbEnvironment::InUse>> LmdbEnvironment::begin(unsigned flags, std::string_view doing) const {
  for (bool again = true;; again = false) {
    InUse in_use(state_->mutex);
    MDB_txn* txn = nullptr;
    const int code = state_->env ? mdb_txn_begin(state_->env, nullptr, flags, &txn) : MDB_PANIC;
    if (code == 0) return std::pair(txn, std::move(in_use));
    if (code != MDB_PANIC || !again) return fail(lmdb_error(code, doing));
    in_use.unlock();
    RK_TRY(state_->reopen());
  }
}

Result<LmdbReadTxn> LmdbReadTxn::begin(const LmdbEnvironment& env) {
  RK_TRY_ASSIGN(auto begun, env.begin(MDB_RDONLY, "read the catalog"));
  return LmdbReadTxn(begun.first, env.state_->dbi, std::move(begun.second));
}
LmdbReadTxn::LmdbReadTxn(LmdbReadTxn&& other) noexcept
    : in_use_(std::move(other.in_use_)), txn_(std::exchange(other.txn_, nullptr)), dbi_(other.dbi_) {}
LmdbReadTxn::~LmdbReadTxn() {
  if (txn_) mdb_txn_abort(txn_);
}
Result<std::optional<std::string_view>> LmdbReadTxn::get(std::string_view key) const { return get_in(txn_, dbi_, key); }

Status LmdbReadTxn::scan(std::string_view from,
                         const std::function<bool(std::string_view, std::string_view)>& visit) const {
  MDB_cursor* raw = nullptr;
  if (const int code = mdb_cursor_open(txn_, dbi_, &raw)) return fail(lmdb_error(code, "read the catalog"));
  const std::unique_ptr<MDB_cursor, void (*)(MDB_cursor*)> cursor(raw, mdb_cursor_close);
  MDB_val key = to_val(from);
  MDB_val value{};
  int code = mdb_cursor_get(raw, &key, &value, from.empty() ? MDB_FIRST : MDB_SET_RANGE);
  while (code == 0 && visit(to_view(key), to_view(value))) code = mdb_cursor_get(raw, &key, &value, MDB_NEXT);
  if (code != 0 && code != MDB_NOTFOUND) return fail(lmdb_error(code, "read the catalog"));
  return {};
}

Result<LmdbWriteTxn> LmdbWriteTxn::begin(const LmdbEnvironment& env) {
  RK_TRY_ASSIGN(auto begun, env.begin(0, "write the catalog"));
  return LmdbWriteTxn(begun.first, env.state_->dbi, std::move(begun.second));
}
LmdbWriteTxn::LmdbWriteTxn(LmdbWriteTxn&& other) noexcept
    : in_use_(std::move(other.in_use_)), txn_(std::exchange(other.txn_, nullptr)), dbi_(other.dbi_) {}
LmdbWriteTxn::~LmdbWriteTxn() {
  if (txn_) mdb_txn_abort(txn_);
}
Result<std::optional<std::string_view>> LmdbWriteTxn::get(std::string_view key) const { return get_in(txn_, dbi_, key); }

Status LmdbWriteTxn::put(std::string_view key, std::string_view value) {
  MDB_val key_val = to_val(key);
  MDB_val value_val = to_val(value);
  if (const int code = mdb_put(txn_, dbi_, &key_val, &value_val, 0)) return fail(lmdb_error(code, "write the catalog"));
  return {};
}
Status LmdbWriteTxn::erase(std::string_view key) {
  MDB_val key_val = to_val(key);
  const int code = mdb_del(txn_, dbi_, &key_val, nullptr);
  if (code != 0 && code != MDB_NOTFOUND) return fail(lmdb_error(code, "write the catalog"));
  return {};
}
Status LmdbWriteTxn::commit() {
  errno = 0;
  const int code = mdb_txn_commit(std::exchange(txn_, nullptr));
  if (code == 0) return {};
  // LMDB also returns EIO, without errno, for a short write, which is what a full disk causes.
  const bool came_short = code == EIO && errno != EIO;
  return fail(lmdb_error(came_short ? ENOSPC : code, "write the catalog"));
}

}  // namespace rekeyfs::catalog
