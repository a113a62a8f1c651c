// CheckReport: what a check found; CheckObserver: told how it goes on.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/ids.h"

namespace rekeyfs {

// What a check found wrong, in one place.
struct CheckProblem {
  enum class Kind {
    catalog,   // the file of the records
    journal,   // changes since the last checkpoint
    record,    // records that do not open, or contradict each other
    table,     // what a layer knows of its blocks
    block,     // of an image's content
    file,      // below layers/
    rollback,  // the store is older than its anchor
  };
  Kind kind = Kind::record;
  std::string path;    // of the image or directory, from the store's root; of a file, below the store's directory
  std::string what;    // what is wrong with it
  std::string remedy;  // what a repair does, or what is to be done
  bool repairable = false;
  std::optional<LayerId> layer;  // tables and blocks: which part of which layer
  std::uint64_t offset = 0, size = 0;  // bytes of the content
};

std::string_view name_of(CheckProblem::Kind kind);

// What could not be verified, although nothing says that it is damaged.
struct Unverified {
  std::string path;
  std::string why;
};

struct CheckReport {
  std::vector<CheckProblem> problems;
  std::vector<Unverified> unverified;
  bool complete = false;  // false: some damage kept the check from looking at the rest
  bool repaired = false;  // every problem is repaired
  std::uint64_t directories = 0, images = 0, links = 0, layers = 0, keys = 0;
  std::uint64_t blocks = 0, bytes = 0;  // of content that was read and opened
  std::string anchor;  // says which state of the store this is; empty if it is damaged
};

struct CheckOptions {
  bool read_data = false;  // every block of every layer
  bool repair = false;
  std::string anchor;  // if not empty, that the store is not older than when this was its anchor
};

// Told how a check goes on. A repair changes nothing before it has told of every problem that it changes something for.
class CheckObserver {
 public:
  virtual ~CheckObserver() = default;
  virtual void progress(std::string_view stage, std::uint64_t done, std::uint64_t total) = 0;  // total 0: not known
  virtual void found(const CheckProblem& problem) = 0;
};

}  // namespace rekeyfs
