// RemovedNodes: the attributes of nodes without a name, for as long as the kernel knows their numbers. That may be
// longer than they have a record: a removed working directory, or a deleted file with times to be written back.
//
// In memory only, because no number is known to the kernel after a remount. Bounded by the number of inodes that the
// kernel holds. Thread-safe.
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
  // A change of size has no effect, because there is no content any more. False if the node is not here.
  bool change(Ino ino, const AttributeChange& change) EXCLUDES(mutex_);
  void forget(Ino ino) EXCLUDES(mutex_);

 private:
  // Fast path: the kernel forgets numbers all the time, and rarely that of a removed node.
  bool is_empty() const { return count_.load() == 0; }

  mutable Mutex mutex_;
  std::unordered_map<Ino, Node> nodes_ GUARDED_BY(mutex_);
  std::atomic<std::size_t> count_{0};
};

}  // namespace rekeyfs::names
