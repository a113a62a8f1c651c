// RemovedNodes: the attributes of nodes that have lost their last name, for as long as the kernel knows their numbers,
// which may be longer than they have a record: a directory that is somebody's working directory, a deleted file whose
// times are still to be written back.
//
// Kept in memory only, since nobody knows a number after the next mount. As many as the kernel holds in use. Thread-safe.
#pragma once

#include <atomic>
#include <optional>
#include <unordered_map>

#include "engine/base/ids.h"
#include "engine/base/mutex.h"
#include "engine/types/attributes.h"

namespace rekeyfs::names {

class RemovedNodes {
 public:
  struct Node {
    Attributes attributes;
    Ino parent;  // of a directory
  };

  void add(const Node& node) EXCLUDES(mutex_);
  std::optional<Node> find(Ino ino) const EXCLUDES(mutex_);
  // A change of size has no effect: there is no content any more. False if there is no such node.
  bool change(Ino ino, const AttributeChange& change) EXCLUDES(mutex_);
  void forget(Ino ino) EXCLUDES(mutex_);

 private:
  // The kernel forgets numbers all the time, and hardly ever that of a node that was removed.
  bool is_empty() const { return count_.load() == 0; }

  mutable Mutex mutex_;
  std::unordered_map<Ino, Node> nodes_ GUARDED_BY(mutex_);
  std::atomic<std::size_t> count_{0};
};

}  // namespace rekeyfs::names
