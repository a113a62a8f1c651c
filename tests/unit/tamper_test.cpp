// Tampering: a small store with examples of everything (RichStore) is manipulated in each way available to an attacker
// without its keys, one change at a time, and opened. Either it is refused with a reason, or every read returns the
// right bytes or an I/O error.
//
// A separate process tries each attack, so that a crash or a hang is a failure of that attack only. The long lists are
// sampled; REKEYFS_TEST_ATTACKS=0 tries all of them (hours), REKEYFS_TEST_SEED draws another sample,
// REKEYFS_TEST_ATTACK_SHARE=k/n runs the k-th of n parts, from 0.
#include "tests/support/attacks.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <optional>

#include "tests/support/damaged_store.h"
#include "tests/support/environment.h"

namespace rekeyfs::test {
namespace {

class TamperTest : public DamagedStore {
 protected:
  static bool all() { return number_from_environment("REKEYFS_TEST_ATTACKS", 1) == 0; }

  void try_one(const Attack& attack) {
    image_->restore(victim());
    attack.apply(victim());
    std::set<std::uint64_t> damaged;
    for (const std::string& file : attack.files) damaged.insert(layer_of_path(file).value());
    in_child(attack.what, [&] { open_and_judge(damaged); });
    const bool journal = std::any_of(attack.files.begin(), attack.files.end(),
                                     [](const auto& file) { return file.starts_with("journal"); });
    // A journal without its end, and a block that the journal's end speaks of, are what a power cut leaves.
    const bool seen = outcome_->kind == Outcome::refused || outcome_->kind == Outcome::with_errors ||
                      (outcome_->kind == Outcome::earlier_state && !journal && damaged == std::set<std::uint64_t>{0});
    if (seen && !outcome_->told) ADD_FAILURE() << attack.what << ": a reader sees it and a check does not";
    expect_no_marker(attack.what);
  }

  void open_and_judge(const std::set<std::uint64_t>& damaged) {
    QuietCheck quiet;
    CheckOptions checked;
    checked.read_data = true;
    const auto report = Engine::check(victim(), test_credential(), checked, quiet);
    outcome_->told = !report || !report->complete || !report->problems.empty();
    OpenOptions options;
    options.filler_workers = 1;
    auto engine = Engine::open(victim(), test_credential(), options);
    if (!engine) {
      outcome_->kind = Outcome::refused;
      if (engine.error().message.size() < 10) outcome_->complain("refused without a reason: " + error_text(engine));
      return;
    }
    oracle_.judge(look_at(**engine), damaged, *outcome_);
    write_secret(**engine);
    static_cast<void>((*engine)->close());
  }

  void try_all(const std::string& kind, const Attacks& attacks) {
    std::map<Outcome::Kind, std::size_t> counts;
    const auto start = std::chrono::steady_clock::now();
    for (const Attack& attack : attacks) {
      try_one(attack);
      ++counts[outcome_->kind];
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    std::printf("%-32s %7zu attacks: %7zu refused, %6zu with errors, %6zu an earlier state, %6zu harmless (%.1f s)\n",
                kind.c_str(), attacks.size(), counts[Outcome::refused], counts[Outcome::with_errors],
                counts[Outcome::earlier_state], counts[Outcome::unharmed], took.count());
    std::fflush(stdout);
  }

  // Whatever reads from the file, at the block that a bit of it belongs to.
  struct Reader {
    OpenFilePtr file;
    std::string content;
  };
  void flip_bits_of_data(const std::string& file) {
    OpenOptions options;
    options.filler_workers = 0;
    const auto engine = Engine::open(victim(), test_credential(), options);
    if (!engine) return outcome_->complain(error_text(engine));
    std::vector<Reader> readers;
    for (const auto& [path, node] : rich_.last())
      if (node.kind == NodeKind::image && rich_.layers().at(node.id).contains(layer_of_path(file).value()))
        readers.push_back(
            {std::move(*(*engine)->files().open(*(*engine)->names().resolve(path), O_RDONLY, kOperator)), node.content});
    const StoreImage now(victim());  // opening gives slots back, and removes files of images that were deleted
    if (!now.contains(file)) return;
    for (const std::uint64_t block : now.pieces(file, kRichBlock)) {
      ::alarm(300);
      const std::string bytes = now.bytes(file, block * kRichBlock, kRichBlock);
      const std::size_t used = bytes.find_last_not_of('\0') + 1;
      for (std::size_t bit = 0; bit < used * 8; bit += all() ? 1 : 9) {  // one of each byte, nearly
        const std::uint64_t at = block * kRichBlock + bit / 8;
        overwrite(victim() + "/" + file, at, std::string(1, static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8))));
        ++outcome_->flipped;
        outcome_->noticed +=
            is_noticed(**engine, readers, file.find(".data") != std::string::npos ? std::optional(block) : std::nullopt)
                ? 1
                : 0;
        overwrite(victim() + "/" + file, at, bytes.substr(bit / 8, 1));
      }
    }
    for (Reader& reader : readers) reader.file.reset();
    oracle_.judge(look_at(**engine), {}, *outcome_);
  }
  bool is_noticed(Engine& engine, const std::vector<Reader>& readers, std::optional<std::uint64_t> only) {
    bool noticed = false;
    char out[kRichBlock];
    for (const Reader& reader : readers) {
      for (std::uint64_t block = only.value_or(0);
           block * kRichBlock < reader.content.size() && (!only || block == *only); ++block) {
        const std::string_view right = std::string_view(reader.content).substr(block * kRichBlock, kRichBlock);
        const auto got =
            engine.files().read(*reader.file, block * kRichBlock, {reinterpret_cast<std::byte*>(out), right.size()});
        if (!got)
          noticed = true;
        else if (std::string_view(out, *got) != right)
          outcome_->complain("block " + std::to_string(block) + " reads as other bytes");
      }
    }
    return noticed;
  }

  Attacks flips(const std::string& part, Bits bits, std::size_t most) {
    Attacks flips;
    for (const FileBit& bit : chosen(bits_of(*image_, part, bits, random_), most)) flips.push_back(flipped(bit));
    return flips;
  }
  // Of all, or of a sample, the part that is this run's.
  template <typename Thing>
  std::vector<Thing> chosen(std::vector<Thing> things, std::size_t most) {
    if (!all()) things = some_of(std::move(things), most, random_);
    const char* text = std::getenv("REKEYFS_TEST_ATTACK_SHARE");
    unsigned part = 0, parts = 1;
    if (text == nullptr || std::sscanf(text, "%u/%u", &part, &parts) != 2 || parts == 0) return things;
    std::vector<Thing> share;
    for (std::size_t i = part; i < things.size(); i += parts) share.push_back(std::move(things[i]));
    return share;
  }

  std::mt19937_64 random_{number_from_environment("REKEYFS_TEST_SEED", 1)};
};

TEST_F(TamperTest, NothingDoneIsNothingFound) {
  try_one({"nothing", {}, [](const std::string&) {}});
  EXPECT_EQ(outcome_->kind, Outcome::unharmed);
  EXPECT_FALSE(outcome_->told);
  EXPECT_GT(rich_.states().size(), 10u);
}

TEST_F(TamperTest, BitsOfTheSuperblock) {
  try_all("bits of the superblock", flips("rekeyfs.store", Bits::all, 60));
}
TEST_F(TamperTest, BitsOfTheJournal) {
  try_all("bits of the journal", flips("journal/", Bits::all, 60));
}
TEST_F(TamperTest, BitsOfTheTables) {
  try_all("bits of block tables", flips(".table", Bits::all, 60));
}
TEST_F(TamperTest, BitsOfTheCatalog) {
  try_all("bits of the catalog", flips("catalog/data.mdb", Bits::one_a_byte, 100));
}
TEST_F(TamperTest, BitsOfWhatIsNotBelieved) {
  try_all("bits of lock files", flips("lock", Bits::one_a_byte, 10));
}
TEST_F(TamperTest, PiecesExchanged) {
  try_all("blocks and pages exchanged", chosen(exchanged_pieces(*image_), 60));
}
TEST_F(TamperTest, OldPiecesPutBack) {
  Attacks old = old_pieces(*image_, older());
  append(old, old_pieces(*image_, oldest()));
  try_all("old blocks, pages and files", chosen(std::move(old), 40));
}
TEST_F(TamperTest, FilesMishandled) {
  try_all("files cut, removed, exchanged", chosen(mishandled_files(*image_), 80));
}
TEST_F(TamperTest, DirectoriesMishandled) {
  try_all("directories, foreign files", chosen(mishandled_directories(*image_), 40));
}
TEST_F(TamperTest, RecordsForged) {
  try_all("records of the catalog forged", chosen(forged_records(*image_, foreign(), path("scratch")), 40));
}
TEST_F(TamperTest, RecordsLost) {
  try_all("records lost and put back", chosen(lost_records(*image_, older(), path("scratch")), 30));
}
TEST_F(TamperTest, JournalsForged) {
  try_all("records of the journal forged", chosen(forged_journals(*image_, older(), foreign()), 60));
}

// Bits of every block, through one opening of the store: blocks are read from their files each time.
TEST_F(TamperTest, BitsOfTheData) {
  std::size_t flipped = 0, noticed = 0;
  for (const std::string& file : image_->files()) {
    if (file.find(".data") == std::string::npos && file.find(".spill") == std::string::npos) continue;
    image_->restore(victim());
    in_child(file, [&] { flip_bits_of_data(file); });
    flipped += outcome_->flipped;
    noticed += outcome_->noticed;
  }
  std::printf("%-32s %7zu attacks: %7zu are errors\n", "bits of blocks", flipped, noticed);
  EXPECT_GT(noticed * 2, flipped);
}

}  // namespace
}  // namespace rekeyfs::test
