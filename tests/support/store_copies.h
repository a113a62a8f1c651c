// Copies a store's directory as kill -9 would leave it; helpers of tests of whole stores.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "engine/base/credential.h"
#include "engine/engine.h"

namespace rekeyfs::test {

inline Credential test_credential() { return Credential(Credential::Kind::key_file, std::string(64, 'k')); }

inline std::string error_text(const Error& error) { return std::string(name_of(error.code)) + ": " + error.message; }
template <typename T>
std::string error_text(const Result<T>& result) {
  return result ? "success" : error_text(result.error());
}

// The problems that a check finds, one per line.
class FoundText final : public CheckObserver {
 public:
  void progress(std::string_view, std::uint64_t, std::uint64_t) override {}
  void found(const CheckProblem& problem) override { text += problem.path + ": " + problem.what + "; " + problem.remedy + "\n"; }
  std::string text;
};

inline std::vector<std::string> journal_of(const std::string& store) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(store + "/journal")) names.push_back(entry.path().filename());
  return names;
}

// Copies what a kill at this moment would leave, because the page cache survives a process. The journal is copied
// first: everything that it names was written before, and nothing is overwritten until the next checkpoint. A
// checkpoint during the copy changes the journal's segments; then the copy is repeated.
inline void copy_as_killed(const std::string& store, const std::string& to) {
  namespace stdfs = std::filesystem;
  for (;;) {
    stdfs::remove_all(to);
    stdfs::create_directory(to);
    std::ofstream(to + "/reserve").close();  // the content of the reserve is irrelevant
    const std::vector<std::string> before = journal_of(store);
    bool copied = before.size() == 1;
    try {
      if (copied) stdfs::copy(store + "/journal", to + "/journal", stdfs::copy_options::recursive);
      if (copied) stdfs::copy(store, to, stdfs::copy_options::recursive | stdfs::copy_options::skip_existing);
    } catch (const stdfs::filesystem_error&) {
      copied = false;  // a file was removed during the copy
    }
    if (copied && journal_of(store) == before) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// Bytes different from those of all other calls, with occasional runs of zeros.
inline std::string random_bytes(std::mt19937_64& random, std::size_t size) {
  std::string bytes(size, '\0');
  if (random() % 8 == 0) return bytes;
  std::uint64_t state = random() | 1;
  for (char& byte : bytes) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    byte = static_cast<char>(state >> 32);
  }
  if (size > 40000 && random() % 3 == 0) std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(random() % (size / 2)), size / 3, '\0');
  return bytes;
}

}  // namespace rekeyfs::test
