#include "engine/blocks/block_table.h"

#include <algorithm>
#include <limits>

namespace rekeyfs::blocks {

using State = TableRoot::State;

struct BlockTable::Page {
  Page(unsigned its_level, PageBudget& shared_budget) : level(its_level), budget(shared_budget) {
    if (level > 0) children.resize(kFanout);
    budget.pages.fetch_add(1, std::memory_order_relaxed);
  }
  ~Page() { budget.pages.fetch_sub(1, std::memory_order_relaxed); }

  std::span<std::byte, kEntrySize> slot(unsigned i) {
    return std::span<std::byte, kEntrySize>(&bytes[i * kEntrySize], kEntrySize);
  }
  std::span<const std::byte, kEntrySize> slot(unsigned i) const {
    return std::span<const std::byte, kEntrySize>(&bytes[i * kEntrySize], kEntrySize);
  }

  const unsigned level;  // 0: leaf
  PageBudget& budget;
  bool dirty = false;     // changed since the last snapshot; then all pages above are dirty, too
  bool flushing = false;  // in a snapshot that is not committed yet
  std::uint64_t position = 0;
  PageBytes bytes{};
  std::vector<std::unique_ptr<Page>> children;
};

namespace {

// Offset in the 32 bytes of a child: state u8, 7 unused, position u64, MAC 16.
constexpr std::size_t kChildPosition = 8;
constexpr std::size_t kChildMac = 16;
// Larger positions would overflow a file offset.
constexpr std::uint64_t kLastPosition = std::numeric_limits<std::int64_t>::max() / kPageSize;

// For all states except data and page, whose numbers differ.
State to_table_state(BlockState state) { return static_cast<State>(state); }
BlockState to_block_state(State state) { return static_cast<BlockState>(state); }

}  // namespace

BlockTable::BlockTable(LayerId layer, const crypto::Mac& mac, OpenFile open_file, const TableRoot& root,
                       PageBudget& budget)
    : layer_(layer),
      mac_(mac),
      open_file_(std::move(open_file)),
      budget_(budget),
      root_{root.state, root.position, root.mac},
      levels_(root.levels),
      positions_known_(root.state != State::page) {}

BlockTable::~BlockTable() = default;

bool BlockTable::is_gone(const Error& error) {
  return error.code == Errc::corrupt || error.code == Errc::not_found || error.code == Errc::io;
}

std::uint64_t BlockTable::span_of(unsigned level) { return std::uint64_t{1} << (7 * (level + 1)); }

std::uint8_t BlockTable::levels_for(std::uint64_t blocks) {
  std::uint8_t levels = 1;
  while (span_of(levels - 1u) < blocks) ++levels;
  return levels;
}

Result<BlockTable::Child> BlockTable::child_of(const Page& page, unsigned slot) {
  const auto raw = page.slot(slot);
  Child child;
  child.state = static_cast<State>(raw[0]);
  if (child.state != State::hole && child.state != State::base && child.state != State::page && child.state != State::lost)
    return fail(Errc::corrupt, "a table page has an unknown state");
  child.position = Reader(raw.subspan(kChildPosition, 8)).get<std::uint64_t>();
  std::memcpy(child.mac.data(), &raw[kChildMac], child.mac.size());
  return child;
}

void BlockTable::set_child(Page& page, unsigned slot, const Child& child) {
  auto raw = page.slot(slot);
  std::fill(raw.begin(), raw.end(), std::byte{0});
  raw[0] = static_cast<std::byte>(child.state);
  if (child.state != State::page) return;
  const std::string position = Writer().put(child.position).take();
  std::memcpy(&raw[kChildPosition], position.data(), position.size());
  std::memcpy(&raw[kChildMac], child.mac.data(), child.mac.size());
}

std::unique_ptr<BlockTable::Page> BlockTable::make_page(unsigned level, State filled_with) {
  auto page = std::make_unique<Page>(level, budget_);
  ++pages_;
  // The states hole, base and lost have the same numbers in leaves and inner pages.
  for (unsigned i = 0; i < kFanout; ++i) page->slot(i)[0] = static_cast<std::byte>(filled_with);
  return page;
}

crypto::Tag BlockTable::mac_of(const PageBytes& bytes, unsigned level, std::uint64_t number) const {
  Writer context;
  context.put_raw(as_bytes("rktable")).put(static_cast<std::uint8_t>(level)).put(layer_.value()).put(number);
  return mac_.tag(as_bytes(context.text()), bytes);
}

Result<std::unique_ptr<BlockTable::Page>> BlockTable::load_page(const Child& child, unsigned level, std::uint64_t number) {
  if (!file_) {
    RK_TRY_ASSIGN(file_, open_file_(false));
  }
  auto page = std::make_unique<Page>(level, budget_);
  std::size_t got = 0;
  if (child.position <= kLastPosition) {
    RK_TRY_ASSIGN(got, file_->read(child.position * kPageSize, page->bytes));
  }
  if (got != kPageSize || !crypto::equal_constant_time(mac_of(page->bytes, level, number), child.mac))
    return fail(Errc::corrupt, "a table page of layer " + std::to_string(layer_.value()) + " (level " + std::to_string(level) +
                                   ", number " + std::to_string(number) + ") is damaged or missing");
  page->position = child.position;
  ++pages_;
  return page;
}

void BlockTable::mark_dirty(Page& page) {
  if (!page.dirty) ++dirty_pages_;
  page.dirty = true;
}

Result<std::optional<BlockTable::Run>> BlockTable::find_cached(BlockIndex index) const {
  unsigned level = levels_ - 1;
  if (index >= span_of(level)) return std::optional(Run{BlockEntry{}, ~std::uint64_t{0} - index});
  Child child = root_;
  const Page* page = root_page_.get();
  for (;; --level) {
    const std::uint64_t span = span_of(level);
    if (child.state != State::page)
      return std::optional(Run{BlockEntry::of(to_block_state(child.state)), span - index % span});
    if (!page) return std::optional<Run>{};
    const unsigned slot = static_cast<unsigned>(index / (span / kFanout) % kFanout);
    if (level == 0) {
      RK_TRY_ASSIGN(const BlockEntry entry, decode_entry(page->slot(slot)));
      unsigned end = slot + 1;
      if (entry.state != BlockState::data)
        while (end < kFanout && page->slot(end)[0] == page->slot(slot)[0]) ++end;
      return std::optional(Run{entry, end - slot});
    }
    RK_TRY_ASSIGN(child, child_of(*page, slot));
    page = page->children[slot].get();
  }
}

Status BlockTable::load_path(BlockIndex index) {
  unsigned level = levels_ - 1;
  if (index >= span_of(level) || root_.state != State::page) return {};
  if (budget_.pages.load(std::memory_order_relaxed) > PageBudget::kMost) shed_clean_leaves();
  RK_TRY_ASSIGN(Page* page, open_root());
  for (; level > 0; --level) {
    const std::uint64_t below = span_of(level - 1);
    const unsigned slot = static_cast<unsigned>(index / below % kFanout);
    RK_TRY_ASSIGN(const Child child, child_of(*page, slot));
    if (child.state != State::page) return {};
    RK_TRY_ASSIGN(page, open_child(*page, slot, index / below));
  }
  return {};
}

Result<BlockTable::Run> BlockTable::find(BlockIndex index) {
  RK_TRY_ASSIGN(std::optional<Run> run, find_cached(index));
  if (!run) {
    RK_TRY(load_path(index));
    RK_TRY_ASSIGN(run, find_cached(index));
  }
  return *run;
}

Result<BlockTable::Page*> BlockTable::open_root() {
  if (root_page_) return root_page_.get();
  if (root_.state == State::page) {
    RK_TRY_ASSIGN(root_page_, load_page(root_, levels_ - 1, 0));
  } else {
    root_page_ = make_page(levels_ - 1, root_.state);
    root_.state = State::page;
    root_.position = 0;
  }
  return root_page_.get();
}

Result<BlockTable::Page*> BlockTable::open_child(Page& parent, unsigned slot, std::uint64_t number) {
  std::unique_ptr<Page>& page = parent.children[slot];
  if (page) return page.get();
  RK_TRY_ASSIGN(Child child, child_of(parent, slot));
  if (child.state == State::page) {
    RK_TRY_ASSIGN(page, load_page(child, parent.level - 1, number));
  } else {
    page = make_page(parent.level - 1, child.state);
    child.state = State::page;
    child.position = 0;
    set_child(parent, slot, child);
  }
  return page.get();
}

void BlockTable::grow_to(BlockIndex index) {
  while (index >= span_of(levels_ - 1)) {
    // Blocks beyond the old span are holes, so an all-hole root only changes its level.
    if (root_.state != State::hole) {
      std::unique_ptr<Page> top = make_page(levels_, State::hole);
      mark_dirty(*top);
      set_child(*top, 0, root_);
      top->children[0] = std::move(root_page_);
      root_page_ = std::move(top);
      root_.state = State::page;
      root_.position = 0;
    }
    ++levels_;
  }
}

Status BlockTable::set(BlockIndex index, const BlockEntry& entry) {
  if (budget_.pages.load(std::memory_order_relaxed) > PageBudget::kMost) shed_clean_leaves();
  grow_to(index);
  RK_TRY_ASSIGN(Page* page, open_root());
  mark_dirty(*page);
  while (page->level > 0) {
    const std::uint64_t below = span_of(page->level - 1);
    RK_TRY_ASSIGN(page, open_child(*page, static_cast<unsigned>(index / below % kFanout), index / below));
    mark_dirty(*page);
  }
  encode_entry(entry, page->slot(static_cast<unsigned>(index % kFanout)));
  return {};
}

Status BlockTable::set_range(BlockIndex first, BlockIndex end, BlockState state, const Dropped& dropped) {
  if (state == BlockState::hole) end = std::min(end, span_of(levels_ - 1));
  if (first >= end) return {};
  if (end > span_of(levels_ - 1)) grow_to(end - 1);
  const State wanted = to_table_state(state);
  if (root_.state == wanted) return {};
  if (first == 0 && end == span_of(levels_ - 1)) {
    RK_TRY(drop_child(root_, root_page_.get(), levels_ - 1, 0, dropped));
    root_page_.reset();
    root_ = Child{wanted, 0, {}};
    return {};
  }
  RK_TRY_ASSIGN(Page* root, open_root());
  return set_range_in(*root, 0, first, end, state, dropped);
}

// `number` counts pages of this level from 0; [first, end) overlaps the page.
Status BlockTable::set_range_in(Page& page, std::uint64_t number, BlockIndex first, BlockIndex end, BlockState state,
                                const Dropped& dropped) {
  const std::uint64_t below = span_of(page.level) / kFanout;  // blocks covered by one slot
  const BlockIndex start = number * span_of(page.level);
  const unsigned from = static_cast<unsigned>((std::max(first, start) - start) / below);
  const unsigned to = static_cast<unsigned>((std::min(end, start + span_of(page.level)) - start + below - 1) / below);
  mark_dirty(page);
  Status status;
  for (unsigned slot = from; slot < to; ++slot) {
    if (page.level == 0) {
      const auto before = decode_entry(page.slot(slot));
      if (before && before->state == BlockState::data) dropped(*before);
      encode_entry(BlockEntry::of(state), page.slot(slot));
      continue;
    }
    const auto child = child_of(page, slot);
    if (child && child->state == to_table_state(state)) continue;
    const BlockIndex child_start = start + slot * below;
    const std::uint64_t child_number = child_start / below;
    if (first <= child_start && child_start + below <= end) {
      if (child) RK_TRY(drop_child(*child, page.children[slot].get(), page.level - 1, child_number, dropped));
      page.children[slot].reset();
      set_child(page, slot, Child{to_table_state(state), 0, {}});
    } else {
      // If a page at one end of the range is damaged, the rest is still set.
      const auto below_page = open_child(page, slot, child_number);
      const Status set = below_page ? set_range_in(**below_page, child_number, first, end, state, dropped) : fail(below_page.error());
      if (!set && status) status = set;
    }
  }
  return status;
}

// Reports every data entry below a child that is about to be removed, and marks the positions of its pages as left
// behind. Afterwards the caller must remove the child, because the positions will be reused. Therefore damage below the
// child is skipped; only a transient error (no memory), after which the change is retried, ends this. Blocks below an
// unreadable page can still be overwritten; their slots stay allocated until the layer is deleted.
Status BlockTable::drop_child(const Child& child, Page* page, unsigned level, std::uint64_t number, const Dropped& dropped) {
  if (child.state != State::page) return {};
  std::unique_ptr<Page> loaded;
  if (!page) {
    auto read = load_page(child, level, number);
    if (!read && is_gone(read.error())) {
      lost_places_ = true;
      return {};
    }
    if (!read) return fail(read.error());
    loaded = std::move(*read);
    page = loaded.get();
  }
  for (unsigned slot = 0; slot < kFanout; ++slot) {
    if (level == 0) {
      const auto entry = decode_entry(page->slot(slot));
      if (entry && entry->state == BlockState::data) dropped(*entry);
    } else if (const auto grandchild = child_of(*page, slot)) {
      RK_TRY(drop_child(*grandchild, page->children[slot].get(), level - 1, number * kFanout + slot, dropped));
    }
  }
  if (page->position) left_behind_.push_back(page->position);
  if (page->dirty) --dirty_pages_;
  --pages_;
  return {};
}

Status BlockTable::mark_lost(const Lost& lost) {
  if (root_.state != State::page) return {};
  const auto root = open_root();
  if (root) {
    RK_TRY(mark_lost_below(**root, 0, lost));
    return {};
  }
  if (!is_gone(root.error())) return fail(root.error());
  root_ = Child{State::lost, 0, {}};
  lost_places_ = true;
  lost(0, span_of(levels_ - 1));
  return {};
}

// Returns whether anything was lost: if so, this page and all above it have changed.
Result<bool> BlockTable::mark_lost_below(Page& page, std::uint64_t number, const Lost& lost) {
  if (page.level == 0) return false;
  bool changed = false;
  for (unsigned slot = 0; slot < kFanout; ++slot) {
    RK_TRY_ASSIGN(const Child child, child_of(page, slot));
    if (child.state != State::page) continue;
    const std::uint64_t below = number * kFanout + slot;
    std::unique_ptr<Page>& kept = page.children[slot];
    const bool was_loaded = kept != nullptr;
    if (const auto opened = open_child(page, slot, below); opened) {
      RK_TRY_ASSIGN(const bool changed_below, mark_lost_below(**opened, below, lost));
      changed = changed || changed_below;
      if (was_loaded || changed_below) continue;
      kept.reset();
      --pages_;
    } else if (is_gone(opened.error())) {
      set_child(page, slot, Child{State::lost, 0, {}});
      lost_places_ = true;
      const std::uint64_t span = span_of(page.level - 1);
      lost(below * span, (below + 1) * span);
      changed = true;
    } else {
      return fail(opened.error());
    }
  }
  if (changed) mark_dirty(page);
  return changed;
}

Result<BlockTable::Snapshot> BlockTable::snapshot() {
  Snapshot out;
  if (!positions_known_) RK_TRY(learn_free_positions());
  if (root_page_ && root_page_->dirty) {
    // Everything that can fail comes first, because from here on the pages count as being flushed.
    if (!file_) {
      RK_TRY_ASSIGN(file_, open_file_(true));
    }
    RK_TRY_ASSIGN(root_, snapshot_page(*root_page_, 0, out));
  }
  out.root = TableRoot{root_.state, static_cast<std::uint8_t>(levels_), root_.position, root_.mac};
  // A change that was retried has left its pages behind twice.
  std::sort(left_behind_.begin(), left_behind_.end());
  left_behind_.erase(std::unique(left_behind_.begin(), left_behind_.end()), left_behind_.end());
  leaving_.insert(leaving_.end(), left_behind_.begin(), left_behind_.end());
  left_behind_.clear();
  return out;
}

Result<BlockTable::Child> BlockTable::snapshot_page(Page& page, std::uint64_t number, Snapshot& out) {
  for (unsigned slot = 0; slot < page.children.size(); ++slot) {
    Page* child = page.children[slot].get();
    if (!child || !child->dirty) continue;
    RK_TRY_ASSIGN(const Child updated, snapshot_page(*child, number * kFanout + slot, out));
    set_child(page, slot, updated);
  }
  if (page.position) left_behind_.push_back(page.position);
  page.position = take_position();
  page.dirty = false;
  page.flushing = true;
  --dirty_pages_;
  out.writes.push_back({page.position, page.bytes});
  return Child{State::page, page.position, mac_of(page.bytes, page.level, number)};
}

Status BlockTable::write(const std::vector<PageWrite>& writes) {
  for (const PageWrite& page : writes) RK_TRY(file_->write(page.position * kPageSize, page.bytes));
  return {};
}

void BlockTable::settle(Page& page, bool committed, std::size_t& dirty_pages) {
  if (page.flushing) {
    page.flushing = false;
    if (!committed && !page.dirty) {
      page.dirty = true;
      ++dirty_pages;
    }
  }
  for (auto& child : page.children)
    if (child) settle(*child, committed, dirty_pages);
}

void BlockTable::committed() {
  if (root_page_) settle(*root_page_, true, dirty_pages_);
  free_.insert(free_.end(), leaving_.begin(), leaving_.end());
  leaving_.clear();
}

void BlockTable::failed() {
  if (root_page_) settle(*root_page_, false, dirty_pages_);
  // The durable tree may still use the pages in leaving_; the next committed snapshot frees them.
}

void BlockTable::count_pages() {
  pages_ = dirty_pages_ = 0;
  if (root_page_) count_below(*root_page_);
}

void BlockTable::count_below(const Page& page) {
  ++pages_;
  if (page.dirty) ++dirty_pages_;
  for (const auto& child : page.children)
    if (child) count_below(*child);
}

std::uint64_t BlockTable::take_position() {
  if (free_.empty()) return next_position_++;
  const std::uint64_t position = free_.back();
  free_.pop_back();
  return position;
}

// After a mount the free positions are unknown; they are all that the tree does not use. Reads inner pages only, one
// page in 128. If an inner page cannot be read, or could not when the tree lost it, the positions below it are unknown,
// and no position in the file counts as free: the durable tree may still use them, and the next read may succeed.
Status BlockTable::learn_free_positions() {
  if (!file_) {
    RK_TRY_ASSIGN(file_, open_file_(true));
  }
  RK_TRY_ASSIGN(const std::uint64_t size, file_->size());
  std::vector<bool> used((size + kPageSize - 1) / kPageSize);
  const Status known = collect_positions(root_, root_page_.get(), levels_ - 1, 0, used);
  if (!known && known.error().code != Errc::corrupt) return known;
  if (!known || lost_places_) used.assign(used.size(), true);
  // The tree of the last checkpoint still uses the pages left behind since then.
  for (std::uint64_t position : left_behind_)
    if (position < used.size()) used[position] = true;
  next_position_ = std::max<std::uint64_t>(1, used.size());
  for (std::uint64_t position = 1; position < used.size(); ++position)
    if (!used[position]) free_.push_back(position);
  positions_known_ = true;
  return {};
}

Status BlockTable::collect_positions(const Child& child, Page* page, unsigned level, std::uint64_t number,
                                     std::vector<bool>& used) {
  if (child.state != State::page) return {};
  // A page changed since the last checkpoint still occupies its durable position, until the snapshot leaves it behind.
  const std::uint64_t position = page ? page->position : child.position;
  if (position > 0) {
    if (position >= used.size()) return fail(Errc::corrupt, "a table page lies beyond the end of its file");
    used[position] = true;
  }
  if (level == 0) return {};
  std::unique_ptr<Page> loaded;
  if (!page) {
    RK_TRY_ASSIGN(loaded, load_page(child, level, number));
    --pages_;
    page = loaded.get();
  }
  for (unsigned slot = 0; slot < kFanout; ++slot) {
    RK_TRY_ASSIGN(const Child grandchild, child_of(*page, slot));
    RK_TRY(collect_positions(grandchild, page->children[slot].get(), level - 1, number * kFanout + slot, used));
  }
  return {};
}

void BlockTable::shed_clean_leaves() {
  constexpr std::size_t kFew = 64;  // with so few pages, other layers have to shed theirs
  if (root_page_ && pages_ > kFew) shed_below(*root_page_);
}

void BlockTable::shed_below(Page& page) {
  for (auto& child : page.children) {
    if (!child) continue;
    if (child->level > 0) {
      shed_below(*child);
    } else if (!child->dirty && !child->flushing) {
      child.reset();
      --pages_;
    }
  }
}

}  // namespace rekeyfs::blocks
