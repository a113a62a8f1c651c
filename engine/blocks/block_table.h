// BlockTable: the block entries of one layer, stored as an authenticated tree of 4 KiB pages.
//
// A page holds 128 entries of 32 bytes. A leaf holds block entries; an inner page holds, for each child, its position
// in the table file and its MAC. The root's position and MAC are in the catalog. A subtree whose blocks are all holes
// or all "from base" has no page: the parent's authenticated entry says so. Pages are never overwritten in place: a
// checkpoint writes changed pages to free positions (copy on write up to the root), so the tree of the last checkpoint
// stays intact until the next one is durable.
//
// Not thread-safe: the layer's lock guards it. Only find_cached() may run under the shared lock.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "engine/blocks/block_entry.h"
#include "engine/io/storage.h"

namespace rekeyfs::blocks {

inline constexpr std::size_t kPageSize = 4096;
inline constexpr unsigned kFanout = kPageSize / kEntrySize;  // 128
using PageBytes = std::array<std::byte, kPageSize>;

// Counts the cached pages of all layers, to bound them together.
struct PageBudget {
  static constexpr std::size_t kMost = 4096;  // 16 MiB: covers the tables of 8 GiB of images
  std::atomic<std::size_t> pages{0};
};

// The catalog's record of a table.
struct TableRoot {
  enum class State : std::uint8_t { hole = 0, base = 1, page = 3, lost = 4 };  // numbers on disk; see BlockState
  State state = State::hole;
  std::uint8_t levels = 1;      // height of the tree; it spans 128^levels blocks, all blocks beyond are holes
  std::uint64_t position = 0;   // of the root page, in pages from the start of the file; 0: no root page
  crypto::Tag mac{};
};

class BlockTable {
 public:
  // Opens the table file and, with `create`, creates it. Never called for a table without pages.
  using OpenFile = std::function<Result<std::unique_ptr<io::File>>(bool create)>;

  BlockTable(LayerId layer, const crypto::Mac& mac, OpenFile open_file, const TableRoot& root, PageBudget& budget);
  ~BlockTable();
  BlockTable(const BlockTable&) = delete;
  BlockTable& operator=(const BlockTable&) = delete;

  // The smallest height whose span includes `blocks` blocks.
  static std::uint8_t levels_for(std::uint64_t blocks);

  // A block's entry and the number of consecutive blocks known to be equal to it; 1 for data.
  struct Run {
    BlockEntry entry;
    std::uint64_t length;
  };
  Result<Run> find(BlockIndex index);
  // nullopt if a page would have to be read from disk.
  Result<std::optional<Run>> find_cached(BlockIndex index) const;

  // Sets one entry. On an error or an exception the entry is unchanged.
  Status set(BlockIndex index, const BlockEntry& entry);
  // Sets [first, end) to hole or base; `end` may exceed the table. Calls `dropped` for each data entry that is
  // overwritten.
  using Dropped = std::function<void(const BlockEntry&)>;
  Status set_range(BlockIndex first, BlockIndex end, BlockState state, const Dropped& dropped);

  // For checks: reads every page. Blocks below an unreadable page become lost, in memory, until the next snapshot is
  // committed. Calls `lost` with their range, which may exceed the content.
  using Lost = std::function<void(BlockIndex first, BlockIndex end)>;
  Status mark_lost(const Lost& lost);

  struct PageWrite {
    std::uint64_t position;
    PageBytes bytes;
  };
  struct Snapshot {
    TableRoot root;
    std::vector<PageWrite> writes;
  };
  // Assigns new positions to all changed pages. The caller then calls write() without the layer's lock, then
  // committed() or failed().
  Result<Snapshot> snapshot();
  Status write(const std::vector<PageWrite>& writes);
  io::File* file() { return file_.get(); }  // null while no table file is open
  void committed();
  void failed();  // also after snapshot() has failed
  void count_pages();  // recounts the cached pages after an interrupted change
  bool is_uniform(TableRoot::State state) const { return root_.state == state; }
  std::size_t dirty_pages() const { return dirty_pages_; }

  // Whether the error means that the page is gone: damaged, or its file or sector unreadable. Other errors are
  // transient.
  static bool is_gone(const Error& error);

 private:
  struct Page;
  struct Child {
    TableRoot::State state = TableRoot::State::hole;
    std::uint64_t position = 0;
    crypto::Tag mac{};
  };
  static std::uint64_t span_of(unsigned level);  // blocks covered by one page of that level
  static Result<Child> child_of(const Page& page, unsigned slot);
  static void set_child(Page& page, unsigned slot, const Child& child);
  std::unique_ptr<Page> make_page(unsigned level, TableRoot::State filled_with);
  Result<std::unique_ptr<Page>> load_page(const Child& child, unsigned level, std::uint64_t number);
  crypto::Tag mac_of(const PageBytes& bytes, unsigned level, std::uint64_t number) const;
  void mark_dirty(Page& page);
  Result<bool> mark_lost_below(Page& page, std::uint64_t number, const Lost& lost);
  Status load_path(BlockIndex index);
  void grow_to(BlockIndex index);
  // Returns the child page in `slot` of `parent`; creates or loads it if necessary.
  Result<Page*> open_child(Page& parent, unsigned slot, std::uint64_t number);
  Result<Page*> open_root();
  Status set_range_in(Page& page, std::uint64_t number, BlockIndex first, BlockIndex end, BlockState state, const Dropped& dropped);
  Status drop_child(const Child& child, Page* page, unsigned level, std::uint64_t number, const Dropped& dropped);
  Result<Child> snapshot_page(Page& page, std::uint64_t number, Snapshot& out);
  Status learn_free_positions();
  // Errc::corrupt if a position is beyond the end of the file.
  Status collect_positions(const Child& child, Page* page, unsigned level, std::uint64_t number, std::vector<bool>& used);
  std::uint64_t take_position();
  void shed_clean_leaves();
  void shed_below(Page& page);
  static void settle(Page& page, bool committed, std::size_t& dirty_pages);
  void count_below(const Page& page);

  const LayerId layer_;
  const crypto::Mac& mac_;
  const OpenFile open_file_;
  PageBudget& budget_;
  std::unique_ptr<io::File> file_;

  Child root_;
  unsigned levels_;
  std::unique_ptr<Page> root_page_;
  std::size_t pages_ = 0;
  std::size_t dirty_pages_ = 0;

  // Positions in the table file. Those that a snapshot leaves behind become free when the snapshot is committed.
  bool positions_known_;
  bool lost_places_ = false;  // an unread page was dropped: the positions below it are unknown and stay unused
  std::uint64_t next_position_ = 1;
  std::vector<std::uint64_t> free_, left_behind_, leaving_;
};

}  // namespace rekeyfs::blocks
