// LayerCheck: checks that the files of layers hold what their tables say. Single-threaded.
//
// Pages of a table that cannot be read are marked as lost before the journal is replayed, so that the journal's changes
// to the rest of the layer are applied. Cost: reads every page of every table and, with `read_data`, every block.
#pragma once

#include <vector>

#include "engine/check/bench.h"
#include "engine/check/records.h"

namespace rekeyfs::check {

class LayerCheck {
 public:
  LayerCheck(Bench& bench, Findings& findings) : bench_(bench), findings_(findings) {}
  // Call before the replay.
  Status mark_lost_pages();
  // Call after the replay, when the records are consistent.
  Status run(const Records& records, bool read_data);
  // Files without a layer, as paths relative to the store's directory.
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
