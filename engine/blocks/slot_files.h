// SlotFiles: the sparse data files that hold the slots of one layer.
//
// Home slots are in <layer>.data<N>, spill slots in <layer>.spill<N>, with 2^26 slots per file (1 TiB of 16 KiB blocks;
// the limit of ext4 is 16 TiB). A file is created or opened on first use. Thread-safe.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <optional>

#include "engine/base/mutex.h"
#include "engine/blocks/limbo.h"
#include "engine/io/storage.h"

namespace rekeyfs::blocks {

// layers/<two digits>/<sixteen digits>; each file of the layer adds a suffix.
std::string layer_path(LayerId layer);
std::string layer_directory(LayerId layer);
// The layer that a file name belongs to; nullopt if it is not the name of a layer's file.
std::optional<LayerId> layer_of_file(std::string_view name);

class SlotFiles {
 public:
  SlotFiles(io::Storage& storage, LayerId layer, std::uint32_t block_size)
      : storage_(storage), layer_(layer), block_size_(block_size) {}

  // Reads or writes consecutive slots from `first` on, which must not cross from home to spill. A read beyond the end
  // of a file gives zeros (the last block of an image is stored short).
  Status read(Slot first, ByteSpan out);
  Status write(Slot first, ByteView bytes);
  Status punch(const SlotRun& run);
  // Allocates space for the slots, so that writing them cannot fail with ENOSPC.
  Status reserve(const SlotRun& run);
  // How many bytes of the slots have space allocated.
  Result<std::uint64_t> reserved(const SlotRun& run);
  // Makes all completed writes and the names of new files durable.
  Status sync();
  bool needs_sync() const;  // true while a sync is in progress, too

  // The location of a slot.
  struct Place {
    std::string ending;  // of the file name
    std::uint64_t offset;
    std::uint64_t left;  // bytes to the end of that file's range
  };
  Place place_of(Slot slot) const;

  // Removes all files of these layers. For each layer: OK if none of its files is left.
  static std::map<LayerId, Status> remove_all(io::Storage& storage, const std::vector<LayerId>& layers);
  static bool is_one(std::string_view path);  // whether the path in the store is a slot file

 private:
  struct Segment {
    std::unique_ptr<io::File> file;
    bool unsynced = false;
  };
  Result<io::File*> file_of(const std::string& ending, bool write);
  // Calls `visit` for each part of a run that lies in one file.
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
  // Called after a write, never before it: a sync in between would clear the mark without covering the write.
  void written(const std::string& ending);

  io::Storage& storage_;
  const LayerId layer_;
  const std::uint32_t block_size_;
  // Held while files are synced, so that no other caller takes a sync in progress for done; taken before mutex_.
  Mutex syncing_;
  mutable Mutex mutex_;
  // By suffix; entries stay for the lifetime of the object.
  std::map<std::string, Segment> segments_ GUARDED_BY(mutex_);
  bool new_names_ GUARDED_BY(mutex_) = false;
  bool under_way_ GUARDED_BY(mutex_) = false;  // a sync is in progress
};

}  // namespace rekeyfs::blocks
