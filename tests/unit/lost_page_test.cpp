// The loss of any single page of a store's tables or catalog: after a repair the store can be mounted, everything that
// was not on the page is intact, and nothing is less encrypted than before.
#include <algorithm>
#include <cstdio>

#include "tests/support/damaged_store.h"

namespace rekeyfs::test {
namespace {

constexpr std::size_t kPageBytes = 4096;

// The keys of the records on a leaf page of LMDB (layout: LMDB 0.9, mdb.c); none of another page.
std::vector<std::string> keys_on(const std::string& page) {
  constexpr std::size_t kFlags = 10, kLower = 12, kHeader = 16, kKeySize = 6, kNode = 8;
  const auto number = [&](std::size_t at) {
    return at + 2 <= page.size() ? Reader(std::string_view(page).substr(at)).get<std::uint16_t>() : std::uint16_t{0};
  };
  std::vector<std::string> keys;
  if ((number(kFlags) & 0xf) != 2) return keys;
  for (std::size_t at = kHeader; at < number(kLower); at += 2) {
    const std::size_t node = number(at);
    if (node + kNode < page.size()) keys.push_back(page.substr(node + kNode, number(node + kKeySize)));
  }
  return keys;
}

// What is lost with records: images by their inode or a layer of theirs, and all that a key or a mount's salt was for.
struct Losses {
  std::set<std::uint64_t> inodes, layers;
  bool keys = false;

  explicit Losses(const std::vector<std::string>& lost) {
    for (const std::string& key : lost) {
      const std::uint64_t number = key.size() >= 9 ? Reader(std::string_view(key).substr(1)).get_be64() : 0;
      if (key[0] == 'I') inodes.insert(number);
      if (key[0] == 'L' || key[0] == 'T') layers.insert(number);
      if (key[0] == 'K' || key[0] == 'E') keys = true;
    }
  }
};

class LostPageTest : public DamagedStore {
 protected:
  struct Count {
    std::size_t pages = 0, used = 0, images_lost = 0;
  };

  // The page is overwritten; a repair, then an opening. `lost`: what was on it.
  void lose(const std::string& file, std::uint64_t page, const std::set<std::uint64_t>& damaged, const Losses& lost,
            Count& count) {
    const std::string what = "page " + std::to_string(page) + " of " + file;
    image_->restore(victim());
    overwrite(victim() + "/" + file, page * kPageBytes, std::string(kPageBytes, 'x'));
    in_child(what, [&] {
      QuietCheck quiet;
      CheckOptions repair;
      repair.repair = true;
      const auto repaired = Engine::check(victim(), test_credential(), repair, quiet);
      if (!repaired || !repaired->complete) return outcome_->complain("the repair did not come to its end");
      outcome_->told = !repaired->problems.empty();
      OpenOptions options;
      options.filler_workers = 0;
      auto engine = Engine::open(victim(), test_credential(), options);
      if (!engine) return outcome_->complain("cannot be opened after the repair: " + error_text(engine));
      judge_repaired(look_at(**engine), damaged, lost);
      write_secret(**engine);
      if (const Status closed = (*engine)->close(); !closed)
        return outcome_->complain("cannot be closed: " + error_text(closed.error()));
      engine->reset();
      const auto again = Engine::check(victim(), test_credential(), {}, quiet);
      if (!again || !again->complete) return outcome_->complain("the next check did not come to its end");
      for (const CheckProblem& problem : again->problems)
        if (problem.kind != CheckProblem::Kind::block)
          outcome_->complain("still there after the repair: " + problem.path + ": " + problem.what);
    });
    expect_no_marker(what);
    ++count.pages;
    count.used += outcome_->told ? 1 : 0;
    count.images_lost += outcome_->noticed;
  }

  // Every image that lost nothing with the page is there, whole; all others have right blocks, or errors; and nothing
  // is less encrypted than it was.
  void judge_repaired(const Seen& seen, const std::set<std::uint64_t>& damaged, const Losses& lost) {
    std::set<std::string> whole;  // by content
    for (const auto& [path, node] : seen) {
      if (node.kind != NodeKind::image) continue;
      if (node.error.empty() && node.unreadable.empty()) whole.insert(node.encryption + node.content);
      if (node.content.find(kSecretMarker) != std::string::npos && node.encryption != "kms")
        outcome_->complain("/" + path + " is plain now");
    }
    for (const char* directory : {"vault", "other"}) judge_policy(seen, directory);
    for (const auto& [path, node] : rich_.last()) {
      if (node.kind != NodeKind::image) continue;
      if (whole.contains(node.encryption + node.content)) continue;
      ++outcome_->noticed;
      const auto& layers = rich_.layers().at(node.id);
      const bool excused = lost.keys || lost.inodes.contains(rich_.inodes().at(node.id)) ||
                           std::any_of(layers.begin(), layers.end(), [&](std::uint64_t layer) {
                             return damaged.contains(layer) || lost.layers.contains(layer);
                           });
      if (!excused) outcome_->complain("/" + path + " is not whole any more");
    }
  }

  // It still has a key; or, where nothing is left that tells which, nobody may write to it.
  void judge_policy(const Seen& seen, const std::string& directory) {
    const auto found = seen.find(directory);
    if (found == seen.end() || !found->second.error.empty() || found->second.encryption == "kms") return;
    const bool has_images =
        std::any_of(seen.begin(), seen.end(), [&](const auto& one) { return one.first.starts_with(directory + "/"); });
    if (has_images || (found->second.permissions & 0222))
      outcome_->complain("/" + directory + " is a plain directory now");
  }

  static void print(const std::string& kind, const Count& count) {
    std::printf("%-32s %7zu pages lost: %zu in use, %zu images lost or damaged with them\n", kind.c_str(), count.pages,
                count.used, count.images_lost);
  }
};

TEST_F(LostPageTest, AnyOneOfATable) {
  Count count;
  for (const std::string& file : files(".table"))
    for (const std::uint64_t page : image_->pieces(file, kPageBytes))
      lose(file, page, {layer_of_path(file).value()}, Losses({}), count);
  print("pages of block tables", count);
  EXPECT_GE(count.used, 5u);
}

TEST_F(LostPageTest, AnyOneOfTheCatalog) {
  Count count;
  const std::string file = "catalog/data.mdb";
  for (std::uint64_t page = 0; page * kPageBytes < image_->size(file); ++page)
    lose(file, page, {}, Losses(keys_on(image_->bytes(file, page * kPageBytes, kPageBytes))), count);
  print("pages of the catalog", count);
  EXPECT_GE(count.used, 5u);
}

}  // namespace
}  // namespace rekeyfs::test
