// LayerCheck: whether the files of a store's layers hold what their tables say. Single-threaded.
//
// A page of a table that cannot be read is marked as lost before the journal is replayed, so that the changes in the
// journal reach the rest of the layer. Cost: every page of every table is read, and with `read_data` every block.
#pragma once

#include <vector>

#include "engine/check/bench.h"
#include "engine/check/records.h"

namespace rekeyfs::check {

class LayerCheck {
 public:
  LayerCheck(Bench& bench, Findings& findings) : bench_(bench), findings_(findings) {}
  // Before the replay.
  Status mark_lost_pages();
  // After it, when the records agree with each other.
  Status run(const Records& records, bool read_data);
  // Files of no layer, as paths below the store's directory.
  Result<std::vector<std::string>> find_orphan_files(const Records& records);

 private:
  struct Span {
    LayerId layer;
    BlockIndex first, end;
  };
  class BlockReport;

  Status detach_from_missing_bases();
  void tell_lost_pages(const Records& records);
  Status check_layer(const Records& records, LayerId id, bool read_data);
  Status check_blocks(const Records& records, blocks::Layer& layer, bool read_data);
  std::string name_of_user(const Records& records, LayerId id) const;
  void note_file(const std::string& path, std::string what, std::string remedy, bool repairable);

  Bench& bench_;
  Findings& findings_;
  std::vector<Span> lost_;
};

}  // namespace rekeyfs::check
