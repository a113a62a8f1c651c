#include "tests/support/lmdb_editor.h"

#include <lmdb.h>

#include <functional>
#include <stdexcept>

namespace rekeyfs::test {
namespace {

void need(int code) {
  if (code != 0) throw std::runtime_error(std::string("LMDB: ") + mdb_strerror(code));
}

MDB_val to_val(const std::string& text) {
  return {text.size(), const_cast<char*>(text.data())};
}
std::string to_string(const MDB_val& val) {
  return {static_cast<const char*>(val.mv_data), val.mv_size};
}

void in_transaction(MDB_env* env, const std::function<void(MDB_txn*, MDB_dbi)>& work) {
  MDB_txn* txn = nullptr;
  MDB_dbi dbi = 0;
  need(mdb_txn_begin(env, nullptr, 0, &txn));
  need(mdb_dbi_open(txn, nullptr, 0, &dbi));
  work(txn, dbi);
  need(mdb_txn_commit(txn));
}

}  // namespace

LmdbEditor::LmdbEditor(const std::string& directory) {
  constexpr std::size_t kMap = std::size_t{1} << 30;
  need(mdb_env_create(&env_));
  need(mdb_env_set_mapsize(env_, kMap));
  need(mdb_env_open(env_, directory.c_str(), MDB_NOLOCK | MDB_NOSYNC, 0600));
}
LmdbEditor::~LmdbEditor() {
  mdb_env_close(env_);
}

std::map<std::string, std::string> LmdbEditor::all() const {
  std::map<std::string, std::string> records;
  in_transaction(env_, [&](MDB_txn* txn, MDB_dbi dbi) {
    MDB_cursor* cursor = nullptr;
    need(mdb_cursor_open(txn, dbi, &cursor));
    MDB_val key{}, value{};
    while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0) records[to_string(key)] = to_string(value);
    mdb_cursor_close(cursor);
  });
  return records;
}

void LmdbEditor::put(const std::string& key, const std::string& value) {
  in_transaction(env_, [&](MDB_txn* txn, MDB_dbi dbi) {
    MDB_val key_val = to_val(key), value_val = to_val(value);
    need(mdb_put(txn, dbi, &key_val, &value_val, 0));
  });
}

void LmdbEditor::erase(const std::string& key) {
  in_transaction(env_, [&](MDB_txn* txn, MDB_dbi dbi) {
    MDB_val key_val = to_val(key);
    need(mdb_del(txn, dbi, &key_val, nullptr));
  });
}

}  // namespace rekeyfs::test
