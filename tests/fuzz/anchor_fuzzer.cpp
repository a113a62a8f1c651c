// Anchors: text that a user passes to `rekeyfs check`.
#include "engine/check/anchor.h"

#include "tests/fuzz/small_store.h"

namespace rekeyfs {
namespace {

// A closed store, opened as a check does.
class CheckedStore {
 public:
  CheckedStore() {
    store_.close();
    bench_ = must(check::Bench::open(store_.path(), SmallStore::credential()));
    must(bench_->open_catalog());
    anchor_ = must(check::anchor_of(*bench_));
    require(!must(check::rolled_back(*bench_, anchor_)), "a store is not older than its own anchor");
  }
  check::Bench& bench() { return *bench_; }
  const std::string& anchor() const { return anchor_; }

 private:
  SmallStore store_;
  std::unique_ptr<check::Bench> bench_;
  std::string anchor_;
};

// The part of the anchor between two colons.
std::string part_of(std::string_view anchor, unsigned number) {
  for (; number > 0; --number) anchor.remove_prefix(std::min(anchor.size(), anchor.find(':') + 1));
  return std::string(anchor.substr(0, anchor.find(':')));
}

// Text, in which '@' and a digit stand for that part of the right anchor: so that what is behind the store's id is
// reached.
void try_input(ByteView input) {
  static CheckedStore store;
  std::string text;
  Reader in(input);
  while (in.left() > 0) {
    const char c = static_cast<char>(in.get<std::uint8_t>());
    if (c == '@')
      text += part_of(store.anchor(), in.get<std::uint8_t>() % 6u);
    else
      text += c;
  }
  const auto older = check::rolled_back(store.bench(), text);
  if (!older) return require(older.error().code == Errc::invalid, "what is no anchor is told so");
  if (*older) return require(text != store.anchor(), "a store is not older than its own anchor");
  const auto checkpoint = store.bench().catalog().checkpointed().checkpoint;
  require(text == store.anchor() || std::stoull(part_of(text, 2)) < checkpoint ||
              part_of(text, 5) == part_of(store.anchor(), 5),
          "a store is not older than an anchor only if that is an earlier one");
}

}  // namespace
}  // namespace rekeyfs

RK_FUZZ_TARGET(rekeyfs::try_input)
