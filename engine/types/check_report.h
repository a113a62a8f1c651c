// CheckReport: the result of a check; CheckObserver: gets its progress.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/ids.h"

namespace rekeyfs {

// One problem.
struct CheckProblem {
  enum class Kind {
    catalog,   // the catalog's file
    journal,   // changes since the last checkpoint
    record,    // records that fail verification or contradict each other
    table,     // the block table of a layer
    block,     // a block of an image's content
    file,      // a file below layers/
    rollback,  // the store is older than its anchor
  };
  Kind kind = Kind::record;
  std::string path;    // of the image or directory, from the store's root; or of the file, from the store's directory
  std::string what;    // the problem
  std::string remedy;  // what a repair does, or what the user must do
  bool repairable = false;
  std::optional<LayerId> layer;  // for tables and blocks: the layer concerned
  std::uint64_t offset = 0, size = 0;  // bytes of the layer's content
};

std::string_view name_of(CheckProblem::Kind kind);

// Something that could not be verified, although there is no sign of damage.
struct Unverified {
  std::string path;
  std::string why;
};

struct CheckReport {
  std::vector<CheckProblem> problems;
  std::vector<Unverified> unverified;
  bool complete = false;  // false: damage kept the check from examining the rest
  bool repaired = false;  // every problem is repaired
  std::uint64_t directories = 0, images = 0, links = 0, layers = 0, keys = 0;
  std::uint64_t blocks = 0, bytes = 0;  // content that was read and decrypted
  std::string anchor;  // identifies the current state of the store; empty if it is damaged
};

struct CheckOptions {
  bool read_data = false;  // read and verify every block of every layer
  bool repair = false;
  std::string anchor;  // if not empty: verify that the store is not older than this anchor
};

// Receives the progress of a check. A repair first reports all problems that it is going to repair, and then changes
// the store.
class CheckObserver {
 public:
  virtual ~CheckObserver() = default;
  virtual void progress(std::string_view stage, std::uint64_t done, std::uint64_t total) = 0;  // total 0: unknown
  virtual void found(const CheckProblem& problem) = 0;
};

}  // namespace rekeyfs
