// LmdbEditor: changes LMDB's records without the engine, as an attacker without keys could. For tests only; throws
// std::runtime_error.
#pragma once

#include <map>
#include <string>

struct MDB_env;

namespace rekeyfs::test {

class LmdbEditor {
 public:
  explicit LmdbEditor(const std::string& directory);
  ~LmdbEditor();
  LmdbEditor(const LmdbEditor&) = delete;
  LmdbEditor& operator=(const LmdbEditor&) = delete;

  std::map<std::string, std::string> all() const;  // as stored: encrypted
  void put(const std::string& key, const std::string& value);
  void erase(const std::string& key);

 private:
  MDB_env* env_ = nullptr;
};

}  // namespace rekeyfs::test
