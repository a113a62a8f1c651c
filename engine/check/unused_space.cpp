#include "engine/check/unused_space.h"

#include <algorithm>

#include "engine/base/log.h"

namespace rekeyfs::check {

using blocks::BlockState;
using blocks::BlockTable;
using blocks::Slot;
using blocks::SlotRun;
using blocks::kSpillBit;

namespace {

class LayerSpace {
 public:
  LayerSpace(io::Storage& storage, blocks::Layer& layer)
      : storage_(storage), layer_(layer), files_(storage, layer.id(), layer.block_size()) {}

  Status give_back() {
    const std::uint64_t homes = slots_in(".data"), spills = slots_in(".spill");
    if (homes == 0 && spills == 0) return {};
    std::vector<bool> spill_used(spills);
    Slot unused = 0;  // home slots from here to the current block hold nothing
    const BlockIndex end = (layer_.size() + layer_.block_size() - 1) / layer_.block_size();
    for (BlockIndex index = 0; index < end;) {
      RK_TRY_ASSIGN(const BlockTable::Run run, layer_.blocks().find(index));
      if (run.entry.state == BlockState::lost) return {};
      if (run.entry.state == BlockState::data) {
        const Slot slot = run.entry.slot;
        if (slot & kSpillBit) {
          if ((slot & ~kSpillBit) < spills) spill_used[slot & ~kSpillBit] = true;
        } else {
          RK_TRY(punch(unused, std::min(slot, homes)));
          unused = slot + 1;
        }
      }
      index += std::min(run.length, end - index);
    }
    RK_TRY(punch(unused, homes));
    return punch_spills(spill_used);
  }

 private:
  // Number of slots that the files of one kind can hold.
  std::uint64_t slots_in(const std::string& kind) {
    std::uint64_t slots = 0;
    for (Slot slot = kind == ".spill" ? kSpillBit : 0;;) {
      const blocks::SlotFiles::Place place = files_.place_of(slot);
      const auto file = storage_.open(blocks::layer_path(layer_.id()) + place.ending, io::OpenMode::read);
      const auto size = file ? (*file)->size() : fail(file.error());
      if (!size) return slots;
      const std::uint64_t whole = place.left / layer_.block_size();
      slots = (slot & ~kSpillBit) + std::min(whole, (*size + layer_.block_size() - 1) / layer_.block_size());
      slot += whole;
    }
  }
  Status punch(Slot first, Slot end) { return first < end ? files_.punch(SlotRun{first, end - first}) : Status{}; }
  Status punch_spills(const std::vector<bool>& used) {
    for (std::uint64_t first = 0; first < used.size();) {
      std::uint64_t end = first;
      while (end < used.size() && !used[end]) ++end;
      RK_TRY(punch(kSpillBit | first, kSpillBit | end));
      first = end + 1;
    }
    return {};
  }

  io::Storage& storage_;
  blocks::Layer& layer_;
  blocks::SlotFiles files_;
};

}  // namespace

Status give_back_unused_space(Bench& bench, const Records& records, Findings& findings) {
  std::uint64_t done = 0;
  for (const auto& [id, record] : records.layers) {
    findings.progress("unused space", done++, records.layers.size());
    const auto layer = bench.layers().get(id);
    // A damaged file whose space cannot be freed now must not make the repair fail.
    if (const Status given = layer ? LayerSpace(bench.storage(), **layer).give_back() : Status{}; !given)
      log::warn("cannot free unused space of layer {}: {}", id.value(), describe(given.error()));
  }
  return {};
}

}  // namespace rekeyfs::check
