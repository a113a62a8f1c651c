// Pages of a block table. Their MACs are right, so that the code behind the verification is reached; one kind of input
// is unauthenticated bytes.
#include "engine/blocks/block_table.h"

#include <map>
#include <optional>

#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory_storage.h"

namespace rekeyfs {
namespace {

using blocks::BlockEntry;
using blocks::BlockState;
using blocks::BlockTable;
using blocks::kEntrySize;
using blocks::kFanout;
using blocks::kPageSize;
using blocks::TableRoot;

constexpr LayerId kLayer{3};
constexpr std::string_view kPath = "table";
constexpr BlockIndex kBlocks = BlockIndex{1} << 39;  // as many as there are home slots

// Makes the pages that the input describes, from the root down, and authenticates them from the leaves up.
class Forger {
 public:
  Forger(Reader& in, const crypto::Mac& mac, std::string& file) : in_(in), mac_(mac), file_(file) {
    file_.assign(kPageSize, '\0');
  }

  TableRoot forge() {
    TableRoot root;
    root.levels = static_cast<std::uint8_t>(1 + in_.get<std::uint8_t>() % 7);
    root.state = state_of(in_.get<std::uint8_t>());
    if (root.state == TableRoot::State::page) put_page(root.levels - 1u, 0, root.position, root.mac);
    return root;
  }
  // Places that lie elsewhere, or are used twice: no checkpoint makes such a table, and it need not keep what it is
  // given.
  bool is_sane() const { return sane_; }

 private:
  static TableRoot::State state_of(std::uint8_t number) {
    constexpr TableRoot::State kStates[] = {TableRoot::State::page, TableRoot::State::hole, TableRoot::State::base,
                                            TableRoot::State::lost};
    return kStates[number % 4];
  }

  void put_page(unsigned level, std::uint64_t number, std::uint64_t& position, crypto::Tag& mac) {
    position = file_.size() / kPageSize;
    file_.resize(file_.size() + kPageSize);
    std::string page(kPageSize, '\0');
    const char filling = static_cast<char>(in_.get<std::uint8_t>() % 3 == 1);  // holes, or all from the base
    for (unsigned slot = 0; slot < kFanout; ++slot) page[slot * kEntrySize] = filling;
    for (auto entries = in_.get<std::uint8_t>() % 8; entries > 0 && in_.ok(); --entries) {
      const unsigned slot = in_.get<std::uint8_t>() % kFanout;
      page.replace(slot * kEntrySize, kEntrySize,
                   level == 0 ? leaf_entry() : inner_entry(level, number * kFanout + slot));
    }
    file_.replace(position * kPageSize, kPageSize, page);
    mac = mac_of(page, level, number);
  }

  std::string leaf_entry() {
    std::string entry(as_text(in_.get_raw(16)));
    entry.resize(kEntrySize);
    return entry;
  }

  std::string inner_entry(unsigned level, std::uint64_t child) {
    Writer entry;
    const auto what = in_.get<std::uint8_t>();
    if (what % 8 == 7) return std::string(kEntrySize, static_cast<char>(what));  // a state that there is not
    const TableRoot::State state = state_of(what);
    entry.put(static_cast<std::uint8_t>(state)).put_raw(std::array<std::byte, 7>{});
    std::uint64_t position = 0;
    crypto::Tag mac{};
    if (state == TableRoot::State::page && file_.size() < MemoryStorage::kMaxBytes / 2) {
      put_page(level - 1, child, position, mac);
      if (what & 0x80) {
        position = in_.get<std::uint64_t>();
        sane_ = false;
        if (position < file_.size() / kPageSize)
          mac = mac_of(std::string_view(file_).substr(position * kPageSize, kPageSize), level - 1, child);
      }
    }
    return entry.put(position).put_raw(mac).take();
  }

  crypto::Tag mac_of(std::string_view page, unsigned level, std::uint64_t number) const {
    Writer context;
    context.put_raw(as_bytes("rktable")).put(static_cast<std::uint8_t>(level)).put(kLayer.value()).put(number);
    return mac_.tag(as_bytes(context.text()), as_bytes(page));
  }

  Reader& in_;
  const crypto::Mac& mac_;
  std::string& file_;
  bool sane_ = true;
};

// A table, and what was put into it.
class Subject {
 public:
  Subject(const crypto::Mac& mac, io::Storage& storage, const TableRoot& root, bool keeps)
      : mac_(mac), storage_(storage), root_(root), keeps_(keeps) {
    open();
  }

  void step(Reader& in) {
    switch (in.get<std::uint8_t>() % 7) {
      case 0:
        return look(index_in(in));
      case 1:
        return set(index_in(in), in.get<std::uint64_t>());
      case 2:
        return set_range(index_in(in), in.get<std::uint64_t>(),
                         in.get<std::uint8_t>() % 2 == 0 ? BlockState::hole : BlockState::base);
      case 3:
        return checkpoint(true);
      case 4:
        return checkpoint(false);
      case 5:
        return reopen();
      default:
        return static_cast<void>(table_->mark_lost(
            [](BlockIndex first, BlockIndex end) { require(first < end, "what is lost is something"); }));
    }
  }
  void expect_what_was_put() {
    for (const auto& [index, entry] : put_) {
      const auto run = table_->find(index);
      require(!keeps_ || (run && run->entry == entry), "an entry is what it was set to");
    }
  }

 private:
  static BlockIndex index_in(Reader& in) {
    const auto shift = in.get<std::uint8_t>() % 40;
    return (in.get<std::uint64_t>() >> shift) % kBlocks;
  }

  void open() {
    table_.emplace(
        kLayer, mac_,
        [this](bool create) { return storage_.open(kPath, create ? io::OpenMode::create : io::OpenMode::write); },
        root_, budget_);
  }
  void look(BlockIndex index) {
    const auto run = table_->find(index);
    require(!run || run->length > 0, "a run is not empty");
    const auto cached = table_->find_cached(index);
    require(!run || (cached && *cached && (*cached)->entry == run->entry), "what was found is there at once");
  }
  void set(BlockIndex index, std::uint64_t number) {
    BlockEntry entry;
    entry.state = number % 5 == 0 ? BlockState::base : BlockState::data;
    if (entry.state == BlockState::data) {
      entry.stored_length = static_cast<std::uint32_t>(1 + number % blocks::kBlockSize);
      entry.slot = number % blocks::kSlotEnd;
    }
    if (table_->set(index, entry)) put_.insert_or_assign(index, entry);
  }
  void set_range(BlockIndex first, BlockIndex end, BlockState state) {
    if (state == BlockState::base) end = std::min(end, kBlocks);
    static_cast<void>(table_->set_range(first, end, state, [](const BlockEntry&) {}));
    std::erase_if(put_, [&](const auto& entry) { return entry.first >= first && entry.first < end; });
  }
  void checkpoint(bool commit) {
    auto snapshot = table_->snapshot();
    if (!snapshot) return;
    if (!commit || !table_->write(snapshot->writes)) return table_->failed();
    table_->committed();
    root_ = snapshot->root;
    durable_ = put_;
  }
  void reopen() {
    open();
    put_ = durable_;
  }

  const crypto::Mac& mac_;
  io::Storage& storage_;
  TableRoot root_;
  const bool keeps_;
  blocks::PageBudget budget_;
  std::optional<BlockTable> table_;
  std::map<BlockIndex, BlockEntry> put_, durable_;
};

// First byte: 0 for pages that are in no MAC but the root's; anything else for pages that the input describes. Then
// what is done with the table.
void try_input(ByteView input) {
  static const crypto::Mac mac = must(crypto::Mac::create(fixed_key()));
  MemoryStorage storage;
  std::string& file = storage.bytes(std::string(kPath));
  Reader in(input);
  TableRoot root;
  bool keeps = false;
  if (in.get<std::uint8_t>() == 0) {
    file = std::string(kPageSize, '\0') + in.get_string();
    root = TableRoot{TableRoot::State::page, static_cast<std::uint8_t>(1 + in.get<std::uint8_t>() % 7), 1, {}};
  } else {
    Forger forger(in, mac, file);
    root = forger.forge();
    keeps = forger.is_sane();
  }
  Subject subject(mac, storage, root, keeps);
  for (int steps = 0; steps < 64 && in.left() > 0; ++steps) subject.step(in);
  subject.expect_what_was_put();
}

}  // namespace
}  // namespace rekeyfs

RK_FUZZ_TARGET(rekeyfs::try_input)
