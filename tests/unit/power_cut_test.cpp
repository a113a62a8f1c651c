// Power cuts: small workloads through the whole engine, with a power cut at every sync and occasionally at a write.
//
// The workload runs once. At each of these moments the store's directory is copied as a power cut would leave it: once
// without any unsynced write, and with random parts of the unsynced writes, in pieces of 4 KiB and torn halves. Each
// copy is then opened and compared with what the model allows: no name, size or block may be older than its last sync,
// and nothing may appear that never existed. REKEYFS_TEST_SEED repeats a run, REKEYFS_TEST_CUT_STEPS lengthens it.
//
// Not covered: LMDB's own writes, which bypass the storage. Its file is copied as it is, so it is always as of a whole
// commit. That commits become durable in the right order depends on LMDB and is tested by
// tests/mount/test_power_cut.py.
#include <fcntl.h>

#include <algorithm>
#include <map>
#include <random>

#include "engine/make_engine.h"
#include "tests/support/environment.h"
#include "tests/support/storage_faults.h"
#include "tests/support/store_copies.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs {
namespace {

namespace stdfs = std::filesystem;
using test::FaultyStorage;

constexpr std::uint64_t kBlock = 16384;
constexpr std::uint64_t kMost = 8 * kBlock;
const Caller kRootUser{0, 0, true};
const std::vector<std::pair<std::string, std::string>> kFolders = {{"plain", ""}, {"a", "key-a"}, {"b", "key-b"}};

using Names = std::map<std::string, std::string>;  // path -> image id

// All that was acknowledged, step by step; a step is one call that changes something.
struct History {
  struct Version {
    std::size_t step;
    std::string content;
  };
  std::vector<Names> names{{}};
  std::map<std::string, std::vector<Version>> images;  // by id
  std::size_t now() const { return names.size() - 1; }
};

// A moment at which the power was cut.
struct Cut {
  std::string directory;
  std::string what;
  std::vector<std::string> calls;  // the latest
  std::size_t step;        // acknowledged before it; one more may have been under way
  std::size_t names_from;  // the namespace was durable then
  std::map<std::string, std::size_t> images_from;
};

Result<std::unique_ptr<Engine>> open_cut(const std::string& directory, unsigned workers) {
  OpenOptions options;
  options.filler_workers = workers;
  return Engine::open(directory, test::test_credential(), options);
}

std::string read_all(Engine& engine, Ino ino, std::string& error) {
  auto file = engine.files().open(ino, O_RDONLY, kRootUser);
  std::string got(kMost * 2, 'x');
  const auto size = file ? engine.files().read(**file, 0, {reinterpret_cast<std::byte*>(got.data()), got.size()}) : fail(file.error());
  if (!size) error = test::error_text(size);
  got.resize(size ? *size : 0);
  return got;
}

class Workload {
 public:
  Workload(std::string directory, std::uint64_t seed) : directory_(std::move(directory)), random_(seed) {}

  void run(std::uint64_t operations) {
    start();
    storage_->set_hook([this](FaultyStorage::Operation operation, const std::string& path) { return moment(operation, path); });
    for (std::uint64_t i = 0; i < operations && !::testing::Test::HasFailure(); ++i) {
      SCOPED_TRACE("operation " + std::to_string(i));
      step();
    }
    storage_->set_hook(nullptr);
    EXPECT_TRUE(engine_->close());
    engine_.reset();
  }

  const History& history() const { return history_; }
  const std::vector<Cut>& cuts() const { return cuts_; }

 private:
  std::uint64_t below(std::uint64_t end) { return random_() % end; }
  bool chance(unsigned percent) { return below(100) < percent; }

  void start() {
    const std::string store = directory_ + "/store";
    ASSERT_TRUE(Engine::initialize(store, test::test_credential()));
    storage_ = std::make_unique<FaultyStorage>(store);
    open_store();
    for (const char* key : {"key-a", "key-b"}) ASSERT_TRUE(engine_->keys().create(key, kRootUser));
    for (const auto& [name, key] : kFolders) {
      const auto made = engine_->names().make_directory(kRootIno, name, 0755, kRootUser);
      ASSERT_TRUE(made);
      folders_[name] = made->ino;
      if (!key.empty()) {
        ASSERT_TRUE(engine_->names().setxattr(made->ino, "user.rekeyfs.key", key, XattrMode::either, kRootUser));
      }
    }
    ASSERT_TRUE(engine_->names().sync_directory(kRootIno));
  }

  void open_store() {
    const std::string store = directory_ + "/store";
    auto opened = store::Store::open(store, test::test_credential(), false, std::make_unique<test::BorrowedStorage>(*storage_));
    ASSERT_TRUE(opened) << test::error_text(opened);
    checkpointer_ = &(*opened)->checkpointer();
    OpenOptions options;
    options.filler_workers = 1;
    auto engine = make_engine(store, std::move(*opened), options);
    ASSERT_TRUE(engine) << test::error_text(engine);
    engine_ = std::move(*engine);
  }

  // --- the moments -----------------------------------------------------------------------------------------------

  Status moment(FaultyStorage::Operation operation, const std::string& path) EXCLUDES(cutting_) {
    Lock lock(cutting_);  // the filler's thread has moments of its own
    const bool writes = operation == FaultyStorage::Operation::write;
    if (operation != FaultyStorage::Operation::sync && (!writes || moments_++ % 16 != 0)) return {};
    const char* verb = operation == FaultyStorage::Operation::sync ? "sync " : "write ";
    // Nothing of what is unsynced; then some of it, another part each time.
    take(verb + path + ", nothing kept", 0);
    take(verb + path + ", a part kept", 1 + static_cast<unsigned>((seed_of_cut_ * 37) % 99));
    return {};
  }
  void take(const std::string& what, unsigned kept) REQUIRES(cutting_) {
    const std::string to = directory_ + "/cut" + std::to_string(cuts_.size());
    storage_->copy_as_cut(to, seed_of_cut_++, kept);
    const std::size_t most = std::min<std::size_t>(calls_.size(), 25);
    cuts_.push_back({to, what, {calls_.end() - static_cast<std::ptrdiff_t>(most), calls_.end()}, history_.now(), names_from_, images_from_});
  }
  // The driving thread changes the history while the filler's thread may look at it.
  void call(const std::string& what) EXCLUDES(cutting_) {
    Lock lock(cutting_);
    calls_.push_back(std::to_string(history_.now() + 1) + " " + what);
  }
  void acknowledged(Names names) EXCLUDES(cutting_) {
    Lock lock(cutting_);
    history_.names.push_back(std::move(names));
  }
  void acknowledged(const std::string& id, std::string content) EXCLUDES(cutting_) {
    Lock lock(cutting_);
    history_.names.push_back(history_.names.back());
    history_.images[id].push_back({history_.now(), std::move(content)});
  }
  void synced(const std::string& id) EXCLUDES(cutting_) {
    Lock lock(cutting_);
    names_from_ = history_.now();
    if (!id.empty()) images_from_[id] = history_.now();
  }

  // --- operations --------------------------------------------------------------------------------------------------

  Names names() const { return history_.names.back(); }
  const std::string& content(const std::string& id) const { return history_.images.at(id).back().content; }
  std::string any_path() { return kFolders[below(kFolders.size())].first + "/f" + std::to_string(below(3)); }
  std::pair<Ino, std::string> place(const std::string& path) const {
    const std::size_t slash = path.find('/');
    return {folders_.at(path.substr(0, slash)), path.substr(slash + 1)};
  }
  std::string any_image() {
    const Names there = names();
    return there.empty() ? "" : std::next(there.begin(), static_cast<std::ptrdiff_t>(below(there.size())))->first;
  }
  Ino ino_of(const std::string& path) {
    const auto [folder, name] = place(path);
    const auto found = engine_->names().lookup(folder, name);
    EXPECT_TRUE(found) << path << ": " << test::error_text(found);
    return found ? found->ino : Ino{};
  }
  OpenFilePtr open(const std::string& path, int flags = O_RDWR) {
    auto opened = engine_->files().open(ino_of(path), flags, kRootUser);
    EXPECT_TRUE(opened) << path << ": " << test::error_text(opened);
    return opened ? std::move(*opened) : nullptr;
  }

  void step() {
    const std::uint64_t drawn = below(100);
    if (drawn < 12) create();
    else if (drawn < 45) write();
    else if (drawn < 52) truncate();
    else if (drawn < 68) copy();
    else if (drawn < 73) unlink();
    else if (drawn < 79) rename();
    else if (drawn < 93) sync();
    else if (drawn < 96) checkpoint();
    else if (drawn < 98) kill();
    else sync_directory();
  }

  // The image's id.
  std::string create_at(const std::string& path, OpenFilePtr& file) {
    call("create " + path);
    const auto [folder, name] = place(path);
    auto created = engine_->files().create(folder, name, 0600, O_RDWR, kRootUser);
    EXPECT_TRUE(created) << path << ": " << test::error_text(created);
    if (!created) return "";
    const auto id = engine_->names().getxattr(created->attributes.ino, "user.rekeyfs.id");
    EXPECT_TRUE(id);
    {
      Lock lock(cutting_);
      history_.images[*id].push_back({history_.now() + 1, ""});
    }
    Names after = names();
    after[path] = *id;
    acknowledged(after);
    file = std::move(created->file);
    return *id;
  }
  void create() {
    const std::string path = any_path();
    if (names().contains(path)) return;
    OpenFilePtr file;
    const std::string id = create_at(path, file);
    if (!id.empty()) write_to(*file, id);
  }

  void write_to(OpenFile& file, const std::string& id) {
    std::string now = content(id);
    const std::uint64_t block = below(std::min(kMost, now.size() + 2 * kBlock) / kBlock);
    const std::uint64_t offset = block * kBlock + (chance(30) ? below(kBlock) : 0);
    const std::uint64_t size = std::min(kMost - offset, chance(50) ? kBlock * (1 + below(3)) : 1 + below(2 * kBlock));
    std::string bytes = test::random_bytes(random_, size);
    call("write " + id.substr(0, 4) + " " + std::to_string(offset) + "+" + std::to_string(size));
    const auto written = engine_->files().write(file, offset, as_bytes(bytes));
    ASSERT_TRUE(written) << test::error_text(written);
    if (now.size() < offset + size) now.resize(offset + size);
    now.replace(offset, size, bytes);
    acknowledged(id, std::move(now));
    ASSERT_TRUE(engine_->files().flush(file));
  }
  void write() {
    const std::string path = any_image();
    if (path.empty()) return;
    const OpenFilePtr file = open(path);
    if (file) write_to(*file, names().at(path));
  }
  void truncate() {
    const std::string path = any_image();
    if (path.empty()) return;
    const std::string id = names().at(path);
    std::string now = content(id);
    AttributeChange change;
    change.size = chance(50) ? below(now.size() + 1) : std::min(kMost, now.size() + below(2 * kBlock));
    call("truncate " + path + " to " + std::to_string(*change.size));
    ASSERT_TRUE(engine_->names().setattr(ino_of(path), change, kRootUser));
    now.resize(*change.size);
    acknowledged(id, std::move(now));
  }

  // As cp does it, into a new image or over another one.
  void copy() {
    const std::string from = any_image();
    const std::string to = any_path();
    if (from.empty() || from == to || content(names().at(from)).empty()) return;
    const std::string source = names().at(from);
    const OpenFilePtr in = open(from, O_RDONLY);
    const bool is_new = !names().contains(to);
    OpenFilePtr out;
    const std::string target = is_new ? create_at(to, out) : names().at(to);
    if (!is_new) out = open(to, O_RDWR | O_TRUNC);
    if (!in || !out) return;
    call("copy " + from + " to " + to + " (" + source.substr(0, 4) + " to " + target.substr(0, 4) + ", " + std::to_string(content(source).size()) + ")");
    const auto copied = engine_->files().copy_range(*in, 0, *out, 0, std::uint64_t{1} << 40, kRootUser);
    if (copied) {
      acknowledged(target, content(source));
      ASSERT_TRUE(engine_->files().flush(*out));
      return;
    }
    ASSERT_EQ(copied.error().code, Errc::busy) << test::error_text(copied);
    ASSERT_TRUE(engine_->files().flush(*out));
    Names after = names();
    if (is_new) after.erase(to);
    acknowledged(after);
  }

  void unlink() {
    const std::string path = any_image();
    if (path.empty()) return;
    const auto [folder, name] = place(path);
    call("unlink " + path);
    ASSERT_TRUE(engine_->names().unlink(folder, name));
    Names after = names();
    after.erase(path);
    acknowledged(after);
  }
  void rename() {
    const std::string path = any_image();
    if (path.empty()) return;
    const auto [folder, name] = place(path);
    const std::string new_name = "f" + std::to_string(below(4));
    if (name == new_name) return;
    call("rename " + path + " to " + new_name);
    ASSERT_TRUE(engine_->names().rename(folder, name, folder, new_name, RenameMode::replace, kRootUser));
    Names after = names();
    after[path.substr(0, path.find('/') + 1) + new_name] = after.at(path);
    after.erase(path);
    acknowledged(after);
  }

  void sync() {
    const std::string path = any_image();
    if (path.empty()) return;
    const OpenFilePtr file = open(path);
    if (!file) return;
    call("fsync " + path);
    const Status status = engine_->files().sync(*file);
    ASSERT_TRUE(status) << test::error_text(status.error());
    synced(names().at(path));
  }
  void sync_directory() {
    call("fsync of a directory");
    ASSERT_TRUE(engine_->names().sync_directory(folders_.begin()->second));
    synced("");
  }
  // The process goes, what it wrote stays in the page cache; opening makes all of it durable.
  void kill() {
    call("kill");
    engine_.reset();
    open_store();
    everything_synced();
  }
  void checkpoint() {
    call("checkpoint");
    const Status status = checkpointer_->run();
    ASSERT_TRUE(status) << test::error_text(status.error());
    everything_synced();
  }
  void everything_synced() {
    synced("");
    for (const auto& [path, id] : names()) synced(id);
  }

  const std::string directory_;
  std::mt19937_64 random_;
  std::unique_ptr<FaultyStorage> storage_;
  store::Checkpointer* checkpointer_ = nullptr;
  std::unique_ptr<Engine> engine_;
  std::map<std::string, Ino> folders_;

  Mutex cutting_;
  History history_;  // changed under cutting_ by the driving thread only
  std::vector<Cut> cuts_;
  std::vector<std::string> calls_ GUARDED_BY(cutting_);  // for messages
  std::uint64_t seed_of_cut_ GUARDED_BY(cutting_) = 1;
  unsigned moments_ GUARDED_BY(cutting_) = 0;
  std::size_t names_from_ GUARDED_BY(cutting_) = 0;
  std::map<std::string, std::size_t> images_from_ GUARDED_BY(cutting_);
};

// --- what may be there ---------------------------------------------------------------------------------------------

bool is_version(const std::string& got, const std::vector<const std::string*>& versions, std::string& why) {
  const auto sizes = std::minmax_element(versions.begin(), versions.end(), [](auto a, auto b) { return a->size() < b->size(); });
  if (got.size() < (*sizes.first)->size() || got.size() > (*sizes.second)->size()) {
    why = "its size is " + std::to_string(got.size());
    return false;
  }
  for (std::uint64_t at = 0; at < got.size(); at += kBlock) {
    const std::string block = got.substr(at, kBlock);
    const bool known = std::any_of(versions.begin(), versions.end(), [&](const std::string* version) {
      std::string then = at < version->size() ? version->substr(at, block.size()) : "";
      then.resize(block.size());
      return then == block;
    });
    if (known) continue;
    why = "block " + std::to_string(at / kBlock) + " is none of " + std::to_string(versions.size()) + " versions";
    return false;
  }
  return true;
}

class CutStore {
 public:
  CutStore(const Cut& cut, const History& history) : cut_(cut), history_(history) {}

  void check() {
    std::string calls;
    for (const std::string& call : cut_.calls) calls += "\n  " + call;
    SCOPED_TRACE("the latest calls:" + calls);
    SCOPED_TRACE("cut at " + cut_.what + ", " + std::to_string(cut_.step) + " steps acknowledged, names durable at " +
                 std::to_string(cut_.names_from) + ", " + cut_.directory);
    compare(0);
    if (!::testing::Test::HasFailure()) compare(1);  // and once more, with the replications taken up
    if (!::testing::Test::HasFailure()) find_nothing_wrong();
  }

 private:
  void compare(unsigned workers) {
    auto opened = open_cut(cut_.directory, workers);
    ASSERT_TRUE(opened) << test::error_text(opened);
    Engine& engine = **opened;
    const Names found = list(engine);
    const std::size_t last = std::min(cut_.step + 1, history_.now());
    bool known = false;
    for (std::size_t step = cut_.names_from; step <= last; ++step) known = known || history_.names[step] == found;
    EXPECT_TRUE(known) << "these names were never there together since the last sync";
    for (const auto& [path, id] : found) compare_image(engine, path, id, last);
    if (workers > 0 && !::testing::Test::HasFailure()) wait_for_replications(engine, found, last);
    EXPECT_TRUE(engine.close());
  }

  Names list(Engine& engine) {
    Names found;
    for (const auto& [folder, key] : kFolders) {
      const auto ino = engine.names().lookup(kRootIno, folder);
      EXPECT_TRUE(ino) << folder;
      if (!ino) continue;
      const auto entries = engine.names().read_directory(ino->ino, 0, 1000);
      EXPECT_TRUE(entries) << test::error_text(entries);
      if (!entries) continue;
      for (const DirectoryEntry& entry : *entries) {
        const auto id = engine.names().getxattr(entry.ino, "user.rekeyfs.id");
        EXPECT_TRUE(id) << test::error_text(id);
        found[folder + "/" + entry.name] = id ? *id : "";
        inos_[folder + "/" + entry.name] = entry.ino;
      }
    }
    return found;
  }

  void compare_image(Engine& engine, const std::string& path, const std::string& id, std::size_t last) {
    const auto history = history_.images.find(id);
    ASSERT_NE(history, history_.images.end()) << path;
    const auto from = cut_.images_from.find(id);
    const std::size_t first = from == cut_.images_from.end() ? 0 : from->second;
    std::vector<const std::string*> versions;
    for (const History::Version& version : history->second) {
      if (version.step > last) break;
      if (version.step <= first) versions.clear();
      versions.push_back(&version.content);
    }
    ASSERT_FALSE(versions.empty()) << path << " did not exist yet";
    std::string error, why;
    const std::string got = read_all(engine, inos_.at(path), error);
    ASSERT_EQ(error, "") << path;
    EXPECT_TRUE(is_version(got, versions, why)) << path << ", synced at step " << first << ": " << why;
    const auto status = engine.names().getxattr(inos_.at(path), "user.rekeyfs.status");
    EXPECT_TRUE(status && *status != "error") << path;
  }

  void wait_for_replications(Engine& engine, const Names& found, std::size_t last) {
    for (int i = 0; i < 1000; ++i) {
      const auto running = engine.reports().replications(kRootIno);
      ASSERT_TRUE(running);
      if (running->empty()) break;
      for (const Replication& one : *running) ASSERT_EQ(one.error, "") << one.path;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    const auto running = engine.reports().replications(kRootIno);
    EXPECT_TRUE(running && running->empty()) << "replications do not end";
    for (const auto& [path, id] : found) compare_image(engine, path, id, last);
  }

  // Files of layers whose records were lost may be there: the next layers get their numbers, and write over them.
  void find_nothing_wrong() {
    test::FoundText found;
    const auto report = Engine::check(cut_.directory, test::test_credential(), {.read_data = true, .repair = false, .anchor = ""}, found);
    ASSERT_TRUE(report) << test::error_text(report);
    auto is_file = [](const CheckProblem& problem) { return problem.kind == CheckProblem::Kind::file; };
    EXPECT_TRUE(report->complete && std::all_of(report->problems.begin(), report->problems.end(), is_file)) << found.text;
    EXPECT_EQ(test::journal_of(cut_.directory).size(), 1u) << "old journal segments are left over";
  }

  const Cut& cut_;
  const History& history_;
  std::map<std::string, Ino> inos_;
};

class PowerCutTest : public test::TempDirectory {};

TEST_F(PowerCutTest, AtAnySyncLeavesWhatWasSyncedAndNothingThatNeverWas) {
  const std::uint64_t seed = test::number_from_environment("REKEYFS_TEST_SEED", std::random_device{}());
  const std::uint64_t operations = test::number_from_environment("REKEYFS_TEST_CUT_STEPS", 40);
  SCOPED_TRACE("REKEYFS_TEST_SEED=" + std::to_string(seed));
  std::printf("REKEYFS_TEST_SEED=%llu REKEYFS_TEST_CUT_STEPS=%llu\n", static_cast<unsigned long long>(seed), static_cast<unsigned long long>(operations));
  Workload workload(directory(), seed);
  workload.run(operations);
  if (HasFailure()) return;
  std::printf("  %zu steps, %zu cuts\n", workload.history().now(), workload.cuts().size());
  for (const Cut& cut : workload.cuts()) {
    CutStore(cut, workload.history()).check();
    if (HasFailure()) return;
    stdfs::remove_all(cut.directory);
  }
}

// What was in the page cache only: no later sync covers it.
TEST_F(PowerCutTest, AnOpeningMakesDurableWhatAKillLeft) {
  const std::string directory = path("store");
  ASSERT_TRUE(Engine::initialize(directory, test::test_credential()));
  FaultyStorage storage(directory);
  const auto open = [&]() -> std::unique_ptr<Engine> {
    auto store = store::Store::open(directory, test::test_credential(), false, std::make_unique<test::BorrowedStorage>(storage));
    EXPECT_TRUE(store) << test::error_text(store);
    if (!store) return nullptr;
    auto engine = make_engine(directory, std::move(*store), {});
    EXPECT_TRUE(engine) << test::error_text(engine);
    return engine ? std::move(*engine) : nullptr;
  };
  std::unique_ptr<Engine> engine = open();
  ASSERT_TRUE(engine);
  const std::string content(3 * kBlock, 'a');
  {
    auto created = engine->files().create(kRootIno, "image", 0600, O_RDWR, kRootUser);
    ASSERT_TRUE(created) << test::error_text(created);
    ASSERT_TRUE(engine->files().write(*created->file, 0, as_bytes(content)));
    ASSERT_TRUE(engine->files().flush(*created->file));
  }
  engine.reset();  // without a close, as by a kill
  engine = open();
  ASSERT_TRUE(engine);
  engine.reset();
  storage.power_cut(1, 0);
  engine = open();
  ASSERT_TRUE(engine);
  const auto image = engine->names().lookup(kRootIno, "image");
  ASSERT_TRUE(image) << test::error_text(image);
  std::string error;
  EXPECT_TRUE(read_all(*engine, image->ino, error) == content) << error;
}

}  // namespace
}  // namespace rekeyfs
