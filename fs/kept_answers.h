// KeptAnswers: the answers of commands, each kept for the handle that the command came through until it was fetched.
//
// An answer is fetched in pieces from its beginning to its end, and is gone then, or with its handle, or when the handle
// has another one. The answers of one user have a bounded size: a new one drops his oldest ones. Thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <string>

#include <sys/types.h>

#include "engine/base/mutex.h"
#include "engine/base/result.h"

namespace rekeyfs::fs {

class KeptAnswers;

// A handle's place for an answer.
class KeptAnswer {
 public:
  KeptAnswer() = default;
  ~KeptAnswer();
  KeptAnswer(const KeptAnswer&) = delete;
  KeptAnswer& operator=(const KeptAnswer&) = delete;

 private:
  friend class KeptAnswers;
  KeptAnswers* kept_by_ = nullptr;
};

class KeptAnswers {
 public:
  static constexpr std::size_t kMaxBytesOfOneUser = std::size_t{16} << 20;
  struct Piece {
    std::string text;
    std::size_t total = 0;  // bytes of the whole answer
  };

  explicit KeptAnswers(std::size_t max_bytes_of_one_user = kMaxBytesOfOneUser) : max_bytes_(max_bytes_of_one_user) {}

  // Keeps the newest answer of a user whatever its size is.
  void keep(KeptAnswer& place, uid_t user, std::string text) EXCLUDES(mutex_);
  // At most `most` bytes from `offset` on. Errc::stale if there is no answer (any more).
  Result<Piece> piece(const KeptAnswer& place, std::uint64_t offset, std::size_t most) EXCLUDES(mutex_);
  void drop(const KeptAnswer& place) EXCLUDES(mutex_);

 private:
  struct Answer {
    const KeptAnswer* place;
    uid_t user;
    std::string text;
  };
  using Answers = std::list<Answer>;
  void erase(Answers::iterator answer) REQUIRES(mutex_);

  const std::size_t max_bytes_;
  Mutex mutex_;
  Answers answers_ GUARDED_BY(mutex_);  // oldest first
  std::map<const KeptAnswer*, Answers::iterator> places_ GUARDED_BY(mutex_);
  std::map<uid_t, std::size_t> bytes_ GUARDED_BY(mutex_);  // of all answers of a user
};

}  // namespace rekeyfs::fs
