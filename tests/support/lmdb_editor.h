// LmdbEditor: changes LMDB's records behind the engine's back, as somebody without any key can. For tests only; throws
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

  std::map<std::string, std::string> all() const;  // as they lie there: sealed
  void put(const std::string& key, const std::string& value);
  void erase(const std::string& key);

 private:
  MDB_env* env_ = nullptr;
};

}  // namespace rekeyfs::test
