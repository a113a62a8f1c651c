// Random operations through the whole engine, compared with a model of files in memory.
//
// REKEYFS_TEST_SEED repeats a run, REKEYFS_TEST_MODEL_STEPS lengthens it. Between operations, the store is closed and
// reopened, or copied as a kill would leave it, and the copy opened.
#include <fcntl.h>

#include <map>
#include <memory>
#include <random>

#include "tests/support/environment.h"
#include "tests/support/store_copies.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs {
namespace {

constexpr std::uint64_t kBlock = 16384;
constexpr std::uint64_t kMost = 24 * kBlock;  // bytes of a file, nearly
const Caller kRootUser{0, 0, true};

struct File {  // of the model; shared by its names and handles
  std::string bytes;
};
using FilePtr = std::shared_ptr<File>;

struct Directory {
  std::string name;
  std::string key;  // empty: plain
  Ino ino;
  std::map<std::string, FilePtr> files;
};

struct Handle {
  OpenFilePtr open;
  FilePtr file;
};

class ModelRun {
 public:
  ModelRun(std::string directory, std::uint64_t seed) : directory_(std::move(directory)), random_(seed) {}

  void run(std::uint64_t operations) {
    start();
    for (done_ = 0; done_ < operations && !::testing::Test::HasFailure(); ++done_) {
      SCOPED_TRACE("operation " + std::to_string(done_));
      step();
      if (done_ % 200 == 199) verify_all();
    }
    verify_all();
  }
  // Long enough for the background checkpoint, of which there is one every few seconds, in the middle of one mount.
  void run_over_checkpoint(std::uint64_t operations) {
    start();
    may_reopen_ = false;
    for (int part = 0; part < 3 && !::testing::Test::HasFailure(); ++part) {
      for (done_ = 0; done_ < operations && !::testing::Test::HasFailure(); ++done_) {
        SCOPED_TRACE("part " + std::to_string(part) + ", operation " + std::to_string(done_));
        step();
      }
      if (part < 2) std::this_thread::sleep_for(std::chrono::milliseconds(3500));
    }
    crash();
  }
  void finish() {
    handles_.clear();
    if (engine_) {
      EXPECT_TRUE(engine_->close());
    }
    engine_.reset();
  }
  const std::map<std::string, int>& counts() const { return counts_; }

 private:
  std::uint64_t below(std::uint64_t end) { return random_() % end; }
  bool chance(unsigned percent) { return below(100) < percent; }
  std::string store() const { return directory_ + "/store" + std::to_string(generation_); }

  // Offsets near block borders are where mistakes are.
  std::uint64_t offset_up_to(std::uint64_t end) {
    std::uint64_t offset = below(end + 1);
    if (chance(40)) offset = offset / kBlock * kBlock;
    else if (chance(30)) offset = offset / kBlock * kBlock + below(3) - (offset >= kBlock ? 1 : 0);
    return std::min(offset, end);
  }
  std::uint64_t length() {
    switch (below(4)) {
      case 0: return 1 + below(300);
      case 1: return kBlock * (1 + below(6));
      default: return 1 + below(5 * kBlock);
    }
  }

  void start() {
    ASSERT_TRUE(Engine::initialize(store(), test::test_credential()));
    open_store();
    for (const char* key : {"key-a", "key-b"}) ASSERT_TRUE(engine_->keys().create(key, kRootUser));
    directories_ = {{"plain", "", {}, {}}, {"plain2", "", {}, {}}, {"a", "key-a", {}, {}}, {"a2", "key-a", {}, {}}, {"b", "key-b", {}, {}}};
    for (Directory& directory : directories_) {
      const auto made = engine_->names().make_directory(kRootIno, directory.name, 0755, kRootUser);
      ASSERT_TRUE(made) << test::error_text(made);
      directory.ino = made->ino;
      if (!directory.key.empty()) {
        ASSERT_TRUE(engine_->names().setxattr(directory.ino, "user.rekeyfs.key", directory.key, XattrMode::either, kRootUser));
      }
    }
  }

  void open_store() {
    OpenOptions options;
    options.filler_workers = static_cast<unsigned>(below(3));
    auto engine = Engine::open(store(), test::test_credential(), options);
    ASSERT_TRUE(engine) << test::error_text(engine);
    engine_ = std::move(*engine);
  }

  // --- choosing ------------------------------------------------------------------------------------------------

  Directory& any_directory() { return directories_[below(directories_.size())]; }
  std::string any_name() { return "f" + std::to_string(below(4)); }
  struct Named {
    Directory* directory = nullptr;
    std::string name;
    FilePtr file;
  };
  Named any_file() {
    for (int attempt = 0; attempt < 20; ++attempt) {
      Directory& directory = any_directory();
      if (directory.files.empty()) continue;
      const auto file = std::next(directory.files.begin(), static_cast<std::ptrdiff_t>(below(directory.files.size())));
      return {&directory, file->first, file->second};
    }
    return {};
  }

  OpenFilePtr open(const Named& named, int flags) {
    const auto ino = engine_->names().lookup(named.directory->ino, named.name);
    EXPECT_TRUE(ino) << named.directory->name << "/" << named.name << ": " << test::error_text(ino);
    if (!ino) return nullptr;
    auto opened = engine_->files().open(ino->ino, flags, kRootUser);
    EXPECT_TRUE(opened) << named.directory->name << "/" << named.name << ": " << test::error_text(opened);
    return opened ? std::move(*opened) : nullptr;
  }
  // A handle for one operation: one that has been open for long, or a fresh one.
  Handle any_handle() {
    if (!handles_.empty() && chance(30)) {
      const std::size_t which = below(handles_.size());
      Handle handle = std::move(handles_[which]);
      handles_.erase(handles_.begin() + static_cast<std::ptrdiff_t>(which));
      return handle;
    }
    const Named named = any_file();
    if (!named.file) return {};
    return {open(named, O_RDWR), named.file};
  }
  void give_back(Handle handle) {
    if (!chance(15)) {
      EXPECT_TRUE(engine_->files().flush(*handle.open));
    }
    if (handles_.size() < 4 && chance(25)) handles_.push_back(std::move(handle));
  }

  // --- comparing -----------------------------------------------------------------------------------------------

  void compare(OpenFile& open, const File& file, const std::string& what) {
    std::string got(file.bytes.size() + 100, 'x');
    const auto size = engine_->files().read(open, 0, {reinterpret_cast<std::byte*>(got.data()), got.size()});
    ASSERT_TRUE(size) << what << ": " << test::error_text(size);
    got.resize(*size);
    ASSERT_EQ(got.size(), file.bytes.size()) << what;
    if (got == file.bytes) return;
    const auto at = std::mismatch(got.begin(), got.end(), file.bytes.begin()).first - got.begin();
    FAIL() << what << " differs at byte " << at << " (block " << static_cast<std::uint64_t>(at) / kBlock << ") of " << got.size();
  }

  void verify_holes(OpenFile& open, const File& file) {
    const std::uint64_t from = offset_up_to(file.bytes.size());
    const auto data = engine_->files().seek(open, from, Seek::data);
    const std::uint64_t end = data ? *data : file.bytes.size();
    if (!data) {
      ASSERT_EQ(data.error().code, Errc::beyond_end) << test::error_text(data);
    }
    for (std::uint64_t at = from; at < end; ++at) ASSERT_EQ(file.bytes[at], '\0') << "a hole was reported over data at " << at;
  }

  void verify_all() {
    for (Directory& directory : directories_) {
      const auto listed = engine_->names().read_directory(directory.ino, 0, 1000);
      ASSERT_TRUE(listed) << test::error_text(listed);
      std::map<std::string, FilePtr> left = directory.files;
      for (const DirectoryEntry& entry : *listed)
        ASSERT_EQ(left.erase(entry.name), 1u) << directory.name << "/" << entry.name << " should not be there";
      ASSERT_TRUE(left.empty()) << directory.name << "/" << left.begin()->first << " is missing";
      for (auto& [name, file] : directory.files) {
        const Named named{&directory, name, file};
        const OpenFilePtr opened = open(named, O_RDONLY);
        if (!opened) return;
        compare(*opened, *file, directory.name + "/" + name);
        verify_holes(*opened, *file);
      }
    }
    for (Handle& handle : handles_) compare(*handle.open, *handle.file, "an open handle");
  }

  // --- operations ----------------------------------------------------------------------------------------------

  void step() {
    struct Choice {
      unsigned weight;
      const char* name;
      void (ModelRun::*operation)();
    };
    static constexpr Choice kChoices[] = {
        {10, "create", &ModelRun::create},         {26, "write", &ModelRun::write},
        {10, "truncate", &ModelRun::truncate},     {8, "zero", &ModelRun::zero},
        {4, "allocate", &ModelRun::allocate},      {12, "copy whole", &ModelRun::copy_whole},
        {8, "copy in pieces", &ModelRun::copy_in_pieces}, {8, "copy a part", &ModelRun::copy_part},
        {5, "unlink", &ModelRun::unlink},          {6, "rename", &ModelRun::rename},
        {2, "link", &ModelRun::link},              {5, "read", &ModelRun::read},
        {3, "truncating open", &ModelRun::open_truncating}, {2, "sync", &ModelRun::sync},
        {1, "reopen", &ModelRun::reopen},          {2, "crash", &ModelRun::maybe_crash},
    };
    unsigned total = 0;
    for (const Choice& choice : kChoices) total += choice.weight;
    unsigned drawn = static_cast<unsigned>(below(total));
    for (const Choice& choice : kChoices) {
      if (drawn < choice.weight) {
        SCOPED_TRACE(choice.name);
        ++counts_[choice.name];
        return (this->*choice.operation)();
      }
      drawn -= choice.weight;
    }
  }

  void create() {
    Directory& directory = any_directory();
    const std::string name = any_name();
    auto created = engine_->files().create(directory.ino, name, 0600, O_RDWR, kRootUser);
    if (directory.files.contains(name)) {
      ASSERT_FALSE(created);
      ASSERT_EQ(created.error().code, Errc::exists) << test::error_text(created);
      return;
    }
    ASSERT_TRUE(created) << test::error_text(created);
    const FilePtr file = directory.files[name] = std::make_shared<File>();
    Handle handle{std::move(created->file), file};
    if (chance(80)) write_to(handle, 0, test::random_bytes(random_, 1 + below(kMost / 2)));
    give_back(std::move(handle));
  }

  void write_to(Handle& handle, std::uint64_t offset, const std::string& bytes) {
    const auto written = engine_->files().write(*handle.open, offset, as_bytes(bytes));
    ASSERT_TRUE(written) << test::error_text(written);
    ASSERT_EQ(*written, bytes.size());
    std::string& content = handle.file->bytes;
    if (content.size() < offset + bytes.size()) content.resize(offset + bytes.size());
    content.replace(offset, bytes.size(), bytes);
  }

  void write() {
    Handle handle = any_handle();
    if (!handle.open) return;
    const std::uint64_t end = handle.file->bytes.size();
    const std::uint64_t offset = chance(15) ? std::min(kMost, end + length()) : chance(20) ? end : offset_up_to(end);
    write_to(handle, offset, test::random_bytes(random_, length()));
    if (chance(25)) compare(*handle.open, *handle.file, "after a write");
    give_back(std::move(handle));
  }

  void truncate() {
    const Named named = any_file();
    if (!named.file) return;
    AttributeChange change;
    change.size = chance(15) ? 0 : chance(60) ? offset_up_to(named.file->bytes.size()) : std::min(kMost, named.file->bytes.size() + length());
    const OpenFilePtr opened = open(named, O_RDWR);
    if (!opened) return;
    const auto ino = engine_->names().lookup(named.directory->ino, named.name);
    const auto changed = engine_->names().setattr(ino->ino, change, kRootUser, chance(50) ? opened.get() : nullptr);
    ASSERT_TRUE(changed) << test::error_text(changed);
    ASSERT_EQ(changed->size, *change.size);
    named.file->bytes.resize(*change.size);
    ASSERT_TRUE(engine_->files().flush(*opened));
    if (chance(40)) compare(*opened, *named.file, "after a truncation");
  }

  void zero_range(Allocate what) {
    Handle handle = any_handle();
    if (!handle.open) return;
    std::string& content = handle.file->bytes;
    const std::uint64_t offset = offset_up_to(content.size());
    const std::uint64_t size = std::min(length(), kMost + kBlock - std::min(offset, kMost));
    const bool keep_size = what == Allocate::punch || chance(50);
    const Status status = engine_->files().allocate(*handle.open, what, keep_size, offset, size);
    ASSERT_TRUE(status) << test::error_text(status);
    if (what != Allocate::reserve) {
      const std::uint64_t end = std::min<std::uint64_t>(content.size(), offset + size);
      if (offset < end) std::fill(content.begin() + static_cast<std::ptrdiff_t>(offset), content.begin() + static_cast<std::ptrdiff_t>(end), '\0');
    }
    if (!keep_size && content.size() < offset + size) content.resize(offset + size);
    if (chance(40)) compare(*handle.open, *handle.file, "after zeroing");
    give_back(std::move(handle));
  }
  void zero() { zero_range(chance(50) ? Allocate::zero : Allocate::punch); }
  void allocate() { zero_range(Allocate::reserve); }

  // A target as cp opens one: made, or truncated if it is there.
  struct Target {
    Directory* directory = nullptr;
    std::string name;
    Handle handle;
    bool made = false;
    std::string before;
  };
  Target open_target(const FilePtr& not_this) {
    Target target;
    target.directory = &any_directory();
    target.name = any_name();
    const auto there = target.directory->files.find(target.name);
    if (there != target.directory->files.end()) {
      if (there->second == not_this) return target;
      target.before = there->second->bytes;
      target.handle = {open({target.directory, target.name, there->second}, O_RDWR | O_TRUNC), there->second};
    } else {
      auto created = engine_->files().create(target.directory->ino, target.name, 0600, O_RDWR, kRootUser);
      EXPECT_TRUE(created) << test::error_text(created);
      if (!created) return target;
      target.made = true;
      target.handle = {std::move(created->file), std::make_shared<File>()};
      target.directory->files[target.name] = target.handle.file;
    }
    target.handle.file->bytes.clear();
    return target;
  }

  // A refusal leaves what was there, and nothing of what the copier made; its handle stays refused.
  void expect_refused(Target& target, const Error& error) {
    ASSERT_EQ(error.code, Errc::busy) << test::error_text(error);
    const auto written = engine_->files().write(*target.handle.open, 0, as_bytes("x"));
    ASSERT_FALSE(written);
    ASSERT_EQ(written.error().code, Errc::busy);
    ASSERT_TRUE(engine_->files().flush(*target.handle.open));
    if (target.made) target.directory->files.erase(target.name);
    else target.handle.file->bytes = target.before;
    ++counts_["refused"];
  }

  void copy_whole() {
    const Named source = any_file();
    if (!source.file) return;
    const OpenFilePtr in = open(source, O_RDONLY);
    if (!in) return;
    Target target = open_target(source.file);
    if (!target.handle.open) return;
    const auto copied = engine_->files().copy_range(*in, 0, *target.handle.open, 0, std::uint64_t{1} << 40, kRootUser);
    if (!copied) return expect_refused(target, copied.error());
    ASSERT_EQ(*copied, source.file->bytes.size());
    target.handle.file->bytes = source.file->bytes;
    ASSERT_TRUE(engine_->files().flush(*target.handle.open));
    if (chance(30)) compare(*target.handle.open, *target.handle.file, "after a copy");
    give_back(std::move(target.handle));
  }

  // Pieces of any sizes, in order or not; the source may be written meanwhile, which a replica does not see.
  void copy_in_pieces() {
    const Named source = any_file();
    if (!source.file || source.file->bytes.empty()) return;
    const OpenFilePtr in = open(source, O_RDWR);
    if (!in) return;
    Target target = open_target(source.file);
    if (!target.handle.open) return;
    const std::string frozen = source.file->bytes;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> pieces;
    for (std::uint64_t at = chance(80) ? 0 : offset_up_to(frozen.size() - 1); at < frozen.size();) {
      const std::uint64_t size = std::min<std::uint64_t>(frozen.size() - at, chance(50) ? length() : kBlock * (1 + below(4)));
      if (chance(90)) pieces.emplace_back(at, size);
      at += size;
    }
    if (chance(30)) std::shuffle(pieces.begin(), pieces.end(), random_);
    if (pieces.empty()) pieces.emplace_back(0, frozen.size());
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      const auto [at, size] = pieces[i];
      const auto copied = engine_->files().copy_range(*in, at, *target.handle.open, at, size, kRootUser);
      if (!copied && i == 0) return expect_refused(target, copied.error());
      ASSERT_TRUE(copied) << "piece " << i << ": " << test::error_text(copied);
      ASSERT_EQ(*copied, size) << "piece " << i;
      std::string& content = target.handle.file->bytes;
      if (content.size() < at + size) content.resize(at + size);
      content.replace(at, size, frozen, at, size);
      if (chance(20)) {
        Handle writer{open(source, O_RDWR), source.file};
        if (!writer.open) return;
        write_to(writer, offset_up_to(source.file->bytes.size()), test::random_bytes(random_, length()));
        ASSERT_TRUE(engine_->files().flush(*writer.open));
      }
      if (chance(20)) compare(*target.handle.open, *target.handle.file, "between pieces");
      if (chance(10)) write_to(target.handle, offset_up_to(content.size()), test::random_bytes(random_, length()));
    }
    ASSERT_TRUE(engine_->files().flush(*target.handle.open));
    compare(*target.handle.open, *target.handle.file, "after a copy in pieces");
    give_back(std::move(target.handle));
  }

  // To another place, or into a file with content of its own.
  void copy_part() {
    const Named source = any_file();
    const Named target = any_file();
    if (!source.file || !target.file || source.file == target.file || source.file->bytes.empty()) return;
    const OpenFilePtr in = open(source, O_RDONLY);
    Handle out{open(target, O_RDWR), target.file};
    if (!in || !out.open) return;
    const std::uint64_t from = offset_up_to(source.file->bytes.size() - 1);
    const std::uint64_t to = chance(30) ? from : offset_up_to(target.file->bytes.size());
    const std::uint64_t asked = length();
    const auto copied = engine_->files().copy_range(*in, from, *out.open, to, asked, kRootUser);
    if (!copied) {
      ASSERT_EQ(copied.error().code, Errc::busy) << test::error_text(copied);
      ASSERT_TRUE(engine_->files().flush(*out.open));
      ++counts_["refused"];
      return;
    }
    const std::uint64_t size = std::min<std::uint64_t>(asked, source.file->bytes.size() - from);
    ASSERT_EQ(*copied, size);
    std::string& content = target.file->bytes;
    if (content.size() < to + size) content.resize(to + size);
    content.replace(to, size, source.file->bytes, from, size);
    ASSERT_TRUE(engine_->files().flush(*out.open));
    if (chance(50)) compare(*out.open, *out.file, "after copying a part");
    give_back(std::move(out));
  }

  void unlink() {
    const Named named = any_file();
    if (!named.file) return;
    const Status status = engine_->names().unlink(named.directory->ino, named.name);
    ASSERT_TRUE(status) << test::error_text(status);
    named.directory->files.erase(named.name);
  }

  void rename() {
    const Named named = any_file();
    if (!named.file) return;
    Directory& to = any_directory();
    const std::string name = any_name();
    const auto there = to.files.find(name);
    const RenameMode how = there == to.files.end() || chance(60) ? RenameMode::replace : RenameMode::exchange;
    const Status status = engine_->names().rename(named.directory->ino, named.name, to.ino, name, how, kRootUser);
    if (there != to.files.end() && there->second == named.file) {
      ASSERT_TRUE(status) << test::error_text(status);
      return;
    }
    if (named.directory->key != to.key) {
      ASSERT_FALSE(status);
      ASSERT_EQ(status.error().code, Errc::cross_policy) << test::error_text(status);
      return;
    }
    ASSERT_TRUE(status) << test::error_text(status);
    if (how == RenameMode::exchange) {
      std::swap(named.directory->files[named.name], to.files[name]);
      return;
    }
    to.files[name] = named.file;
    named.directory->files.erase(named.name);
  }

  void link() {
    const Named named = any_file();
    if (!named.file) return;
    Directory& to = any_directory();
    const std::string name = any_name();
    if (to.files.contains(name)) return;
    const auto ino = engine_->names().lookup(named.directory->ino, named.name);
    ASSERT_TRUE(ino) << test::error_text(ino);
    const auto linked = engine_->names().link(ino->ino, to.ino, name);
    if (named.directory->key != to.key) {
      ASSERT_FALSE(linked);
      ASSERT_EQ(linked.error().code, Errc::cross_policy) << test::error_text(linked);
      return;
    }
    ASSERT_TRUE(linked) << test::error_text(linked);
    to.files[name] = named.file;
  }

  void read() {
    Handle handle = any_handle();
    if (!handle.open) return;
    const std::string& content = handle.file->bytes;
    const std::uint64_t offset = offset_up_to(content.size() + kBlock);
    std::string got(length(), 'x');
    const auto size = engine_->files().read(*handle.open, offset, {reinterpret_cast<std::byte*>(got.data()), got.size()});
    ASSERT_TRUE(size) << test::error_text(size);
    got.resize(*size);
    ASSERT_TRUE(got == (offset < content.size() ? content.substr(offset, length_of(got)) : ""));
    verify_holes(*handle.open, *handle.file);
    give_back(std::move(handle));
  }
  static std::size_t length_of(const std::string& got) { return got.size(); }

  void open_truncating() {
    const Named named = any_file();
    if (!named.file) return;
    Handle handle{open(named, O_RDWR | O_TRUNC), named.file};
    if (!handle.open) return;
    named.file->bytes.clear();
    compare(*handle.open, *handle.file, "after O_TRUNC");
    if (chance(70)) write_to(handle, offset_up_to(kBlock * 3), test::random_bytes(random_, length()));
    const Status flushed = engine_->files().flush(*handle.open);
    ASSERT_TRUE(flushed) << test::error_text(flushed);
    give_back(std::move(handle));
  }

  void sync() {
    Handle handle = any_handle();
    if (!handle.open) return;
    const Status status = engine_->files().sync(*handle.open);
    ASSERT_TRUE(status) << test::error_text(status);
    give_back(std::move(handle));
  }

  void reopen() {
    if (!may_reopen_) return;
    handles_.clear();
    ASSERT_TRUE(engine_->close());
    engine_.reset();
    open_store();
    if (engine_) verify_all();
  }

  void maybe_crash() {
    if (may_reopen_) crash();
  }
  void crash() {
    const std::string old = store();
    ++generation_;
    test::copy_as_killed(old, store());
    handles_.clear();
    engine_.reset();
    std::filesystem::remove_all(old);
    if (chance(30)) {  // killed again before anything was asked of it
      open_store();
      if (!engine_) return;
      const std::string again = store();
      ++generation_;
      test::copy_as_killed(again, store());
      engine_.reset();
      std::filesystem::remove_all(again);
    }
    open_store();
    if (engine_) verify_all();
  }

  const std::string directory_;
  std::mt19937_64 random_;
  int generation_ = 0;
  std::uint64_t done_ = 0;
  bool may_reopen_ = true;
  std::unique_ptr<Engine> engine_;
  std::vector<Directory> directories_;
  std::vector<Handle> handles_;  // after engine_: they go first
  std::map<std::string, int> counts_;
};

class ModelTest : public test::TempDirectory {};

TEST_F(ModelTest, RandomOperationsGiveWhatAModelGives) {
  const std::uint64_t seed = test::number_from_environment("REKEYFS_TEST_SEED", std::random_device{}());
  const std::uint64_t operations = test::number_from_environment("REKEYFS_TEST_MODEL_STEPS", 4000);
  std::printf("REKEYFS_TEST_SEED=%llu REKEYFS_TEST_MODEL_STEPS=%llu\n", static_cast<unsigned long long>(seed), static_cast<unsigned long long>(operations));
  RecordProperty("seed", std::to_string(seed));
  SCOPED_TRACE("REKEYFS_TEST_SEED=" + std::to_string(seed));
  ModelRun run(directory(), seed);
  run.run(operations);
  run.finish();
  for (const auto& [name, count] : run.counts()) std::printf("  %s: %d\n", name.c_str(), count);
}

TEST_F(ModelTest, AKillAfterABackgroundCheckpointLosesNothing) {
  const std::uint64_t seed = test::number_from_environment("REKEYFS_TEST_SEED", std::random_device{}());
  SCOPED_TRACE("REKEYFS_TEST_SEED=" + std::to_string(seed));
  ModelRun run(directory(), seed);
  run.run_over_checkpoint(300);
  run.finish();
}

}  // namespace
}  // namespace rekeyfs
