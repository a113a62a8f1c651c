// ExaminationTurns: whose image the initializer reads next. Users take turns, and of one user the image with the least
// left to read comes first. One worker at a time works for a user, so that no user has all workers. No clock and no
// locks: the owner guards the object.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include <sys/types.h>

#include "engine/base/ids.h"
#include "engine/crypto/hash.h"
#include "engine/namespace/inode_record.h"

namespace rekeyfs::images {

// The examination of one image, as far as it got. Its worker alone changes it.
struct Examination {
  // What was read so far.
  struct Part {
    LayerId layer;
    std::uint64_t size = 0, offset = 0;  // in bytes
    names::Findings findings;
    crypto::Sha256 hash;
  };
  const Ino ino;
  const uid_t user;  // the image's owner
  const std::chrono::steady_clock::duration pause;  // since the previous, failed visit; 0: there was none
  bool has_begun = false;
  std::unique_ptr<Part> part;
};

class ExaminationTurns {
 public:
  using Item = std::shared_ptr<Examination>;

  void add(const Item& item, std::uint64_t bytes_left);  // replaces an examination of the same image
  void remove(Ino ino) noexcept;                         // also one that a worker has
  // The worker gives it back, or ends it.
  Item take();
  void give_back(const Item& taken, std::uint64_t bytes_left);  // no-op for the item if it was removed or replaced
  void end(const Item& taken) noexcept;
  // The examination of this image; null if there is none.
  Item find(Ino ino) const;

 private:
  struct Entry {
    Item item;
    std::uint64_t bytes_left;
  };
  std::map<Ino, Entry> all_;
  std::map<uid_t, std::set<std::pair<std::uint64_t, Ino>>> ready_;  // by bytes left; without users who have none
  std::set<uid_t> at_work_;  // users for whom a worker works
  uid_t last_user_ = 0;
};

}  // namespace rekeyfs::images
