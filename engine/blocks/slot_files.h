// SlotFiles: the sparse data files in which the slots of one layer lie.
//
// Home slots in <layer>.data<N>, spill slots in <layer>.spill<N>, 2^26 slots a file (1 TiB of 16 KiB blocks; ext4
// ends at 16 TiB). Files are opened, and made, when first needed. Thread-safe.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <optional>

#include "engine/base/mutex.h"
#include "engine/blocks/limbo.h"
#include "engine/io/storage.h"

namespace rekeyfs::blocks {

// layers/<two digits>/<sixteen digits>, to which an ending is added.
std::string layer_path(LayerId layer);
std::string layer_directory(LayerId layer);
// The layer whose file has this name in its directory; nothing for a name that no layer's file has.
std::optional<LayerId> layer_of_file(std::string_view name);

class SlotFiles {
 public:
  SlotFiles(io::Storage& storage, LayerId layer, std::uint32_t block_size)
      : storage_(storage), layer_(layer), block_size_(block_size) {}

  // Slots [first, first + count), which must not cross from home to spill; at the end of a file the rest of `out`
  // is zeroed (the last block of an image is stored short).
  Status read(Slot first, ByteSpan out);
  Status write(Slot first, ByteView bytes);
  Status punch(const SlotRun& run);
  // Takes the space of slots now, so that writing them takes none.
  Status reserve(const SlotRun& run);
  // How many bytes of slots have their space.
  Result<std::uint64_t> reserved(const SlotRun& run);
  // Makes all writes so far durable, and the names of new files.
  Status sync();
  bool needs_sync() const;  // also while a sync is under way

  // Where a slot lies.
  struct Place {
    std::string ending;  // of the file
    std::uint64_t offset;
    std::uint64_t left;  // bytes to the end of that file
  };
  Place place_of(Slot slot) const;

  // Removes every file of these layers, whatever its number. For each layer, whether all are gone.
  static std::map<LayerId, Status> remove_all(io::Storage& storage, const std::vector<LayerId>& layers);
  static bool is_one(std::string_view path);  // in the store

 private:
  struct Segment {
    std::unique_ptr<io::File> file;
    bool unsynced = false;
  };
  Result<io::File*> file_of(const std::string& ending, bool write);
  // Visits the parts of a run that lie in one file each.
  template <typename Visit>
  Status each_part(const SlotRun& run, Visit visit) {
    for (SlotRun left = run; left.count > 0;) {
      const Place place = place_of(left.first);
      const std::uint64_t count = std::min(left.count, place.left / block_size_);
      RK_TRY(visit(place, count * block_size_));
      left.first += count;
      left.count -= count;
    }
    return {};
  }
  // After a write, not before: a sync between the two would take the mark and not the bytes.
  void written(const std::string& ending);

  io::Storage& storage_;
  const LayerId layer_;
  const std::uint32_t block_size_;
  Mutex syncing_;  // held while files are synced, so that nobody takes what is under way for done; before mutex_
  mutable Mutex mutex_;
  std::map<std::string, Segment> segments_ GUARDED_BY(mutex_);  // by ending; never removed while the object lives
  bool new_names_ GUARDED_BY(mutex_) = false;
  bool under_way_ GUARDED_BY(mutex_) = false;  // a sync
};

}  // namespace rekeyfs::blocks
