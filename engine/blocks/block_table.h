// BlockTable: the entries of one layer's blocks, as an authenticated tree of 4 KiB pages.
//
// A page holds 128 entries of 32 bytes: a leaf those of blocks, an inner page those of its children, each with
// the child's place in the table file and its MAC; the root's is in the catalog. A child that is all holes or all
// "from base" has no page: its parent says so, authenticated. Pages are never written in place: a checkpoint puts
// changed ones in free places (copy on write up to the root), so the tree of the last checkpoint stays whole
// until the next one is durable.
//
// Not thread-safe: the layer's lock guards it. find_cached() alone may run under the shared lock.
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

// Pages in memory over all layers, so that together they stay bounded.
struct PageBudget {
  static constexpr std::size_t kMost = 4096;  // 16 MiB: the tables of 8 GiB of image
  std::atomic<std::size_t> pages{0};
};

// What the catalog keeps of a table.
struct TableRoot {
  enum class State : std::uint8_t { hole = 0, base = 1, page = 3, lost = 4 };  // numbers on disk; see BlockState
  State state = State::hole;
  std::uint8_t levels = 1;      // of pages; the table spans 128^levels blocks, beyond it all are holes
  std::uint64_t position = 0;   // of the root page, in pages from the file's start; 0: none
  crypto::Tag mac{};
};

class BlockTable {
 public:
  // Opens the table file, making it if `create`. A table without pages never asks.
  using OpenFile = std::function<Result<std::unique_ptr<io::File>>(bool create)>;

  BlockTable(LayerId layer, const crypto::Mac& mac, OpenFile open_file, const TableRoot& root, PageBudget& budget);
  ~BlockTable();
  BlockTable(const BlockTable&) = delete;
  BlockTable& operator=(const BlockTable&) = delete;

  // The fewest levels whose span has `blocks`.
  static std::uint8_t levels_for(std::uint64_t blocks);

  // The entry of a block and how many blocks from it on are known to be the same; 1 for data.
  struct Run {
    BlockEntry entry;
    std::uint64_t length;
  };
  Result<Run> find(BlockIndex index);
  // nullopt if a page would have to be read.
  Result<std::optional<Run>> find_cached(BlockIndex index) const;

  // Sets one entry. Fails, or throws, without having set it.
  Status set(BlockIndex index, const BlockEntry& entry);
  // Sets [first, end) to hole or base; `end` may be beyond all. `dropped` is told of each data entry that goes.
  using Dropped = std::function<void(const BlockEntry&)>;
  Status set_range(BlockIndex first, BlockIndex end, BlockState state, const Dropped& dropped);

  // Checking: reads every page. What a page stood for that cannot be read is lost from now on, in memory until the
  // next snapshot is committed; `lost` is told of the blocks, which may lie beyond the content.
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
  // Gives every changed page a new place. Then write() without the layer's lock, then committed() or failed().
  Result<Snapshot> snapshot();
  Status write(const std::vector<PageWrite>& writes);
  io::File* file() { return file_.get(); }  // null while there is none
  void committed();
  void failed();  // also if the snapshot itself did
  void count_pages();  // anew, after a change that was not finished
  bool is_uniform(TableRoot::State state) const { return root_.state == state; }
  std::size_t dirty_pages() const { return dirty_pages_; }

  // Of an error: a page that is damaged, or whose file or sector is, is gone. Others say nothing about it.
  static bool is_gone(const Error& error);

 private:
  struct Page;
  struct Child {
    TableRoot::State state = TableRoot::State::hole;
    std::uint64_t position = 0;
    crypto::Tag mac{};
  };
  static std::uint64_t span_of(unsigned level);  // blocks below one page of that level
  static Result<Child> child_of(const Page& page, unsigned slot);
  static void set_child(Page& page, unsigned slot, const Child& child);
  std::unique_ptr<Page> make_page(unsigned level, TableRoot::State filled_with);
  Result<std::unique_ptr<Page>> load_page(const Child& child, unsigned level, std::uint64_t number);
  crypto::Tag mac_of(const PageBytes& bytes, unsigned level, std::uint64_t number) const;
  void mark_dirty(Page& page);
  Result<bool> mark_lost_below(Page& page, std::uint64_t number, const Lost& lost);
  Status load_path(BlockIndex index);
  void grow_to(BlockIndex index);
  // The page of `slot` below `parent`, made or loaded if need be.
  Result<Page*> open_child(Page& parent, unsigned slot, std::uint64_t number);
  Result<Page*> open_root();
  Status set_range_in(Page& page, std::uint64_t number, BlockIndex first, BlockIndex end, BlockState state, const Dropped& dropped);
  Status drop_child(const Child& child, Page* page, unsigned level, std::uint64_t number, const Dropped& dropped);
  Result<Child> snapshot_page(Page& page, std::uint64_t number, Snapshot& out);
  Status learn_free_positions();
  // Errc::corrupt if one lies beyond the file's end.
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

  // Places in the table file. The ones a snapshot leaves behind are free once it is committed.
  bool positions_known_;
  bool lost_places_ = false;  // a page that was not read went: what lay below it is in none of these
  std::uint64_t next_position_ = 1;
  std::vector<std::uint64_t> free_, left_behind_, leaving_;
};

}  // namespace rekeyfs::blocks
