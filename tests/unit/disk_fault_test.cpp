// A failing disk: a small workload through the whole engine, in which the n-th operation on the store's files fails,
// for every n, either once or permanently. It must never crash and never return bytes that were not written; all
// acknowledged data must be there when the store is reopened on a sound disk. REKEYFS_TEST_FAULTS=0 tries each kind of
// failure at each n.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <set>
#include <thread>

#include <gmock/gmock.h>

#include "engine/make_engine.h"
#include "fs/control.h"
#include "tests/support/environment.h"
#include "tests/support/storage_faults.h"
#include "tests/support/store_copies.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs {
namespace {

using test::FaultyStorage;

constexpr std::uint64_t kBlock = 16384;
constexpr std::uint64_t kBlocks = 6;
const Caller kUser{0, 0, true};

// What each block of each image may be: all it was since the last acknowledged write, that one included.
using Versions = std::map<std::string, std::vector<std::set<char>>>;

class DiskFaultTest : public test::TempDirectory {
 protected:
  void make_store() {
    ASSERT_TRUE(Engine::initialize(path("store"), test::test_credential()));
    storage_ = std::make_unique<FaultyStorage>(path("store"));
    ASSERT_TRUE(open());
    ASSERT_TRUE(engine_->keys().create("tenant", kUser));
    for (const char* name : {"plain", "one"}) {
      const auto made = engine_->names().make_directory(kRootIno, name, 0755, kUser);
      ASSERT_TRUE(made);
      folders_[name] = made->ino;
    }
    ASSERT_TRUE(engine_->names().setxattr(folders_["one"], "user.rekeyfs.key", "tenant", XattrMode::either, kUser));
    for (const char* name : {"plain/a", "plain/doomed", "one/b"}) write(name, 0, kBlocks, 'o');
    ASSERT_TRUE(engine_->close());
    engine_.reset();
  }
  Status open() {
    RK_TRY_ASSIGN(std::unique_ptr<store::Store> store,
                  store::Store::open(path("store"), test::test_credential(), false, std::make_unique<test::BorrowedStorage>(*storage_)));
    OpenOptions options;
    options.filler_workers = 1;
    RK_TRY_ASSIGN(engine_, make_engine(path("store"), std::move(store), options));
    return {};
  }
  Ino folder_of(const std::string& name) { return folders_[name.substr(0, name.find('/'))]; }
  static std::string base_of(const std::string& name) { return name.substr(name.find('/') + 1); }

  Result<OpenFilePtr> open_image(const std::string& name) {
    const auto found = engine_->names().lookup(folder_of(name), base_of(name));
    if (found) return engine_->files().open(found->ino, O_RDWR, kUser);
    if (found.error().code != Errc::not_found) return fail(found.error());
    RK_TRY_ASSIGN(Files::Created made, engine_->files().create(folder_of(name), base_of(name), 0600, 0, kUser));
    return std::move(made.file);
  }
  // One call after the other, as a program does; the first failure ends it.
  Status try_write(const std::string& name, std::uint64_t first, std::uint64_t count, char fill, bool sync) {
    RK_TRY_ASSIGN(const OpenFilePtr file, open_image(name));
    auto& blocks = versions_[name];
    blocks.resize(kBlocks, {'\0'});
    for (std::uint64_t i = first; i < first + count; ++i) blocks[i].insert(fill);
    RK_TRY(engine_->files().write(*file, first * kBlock, as_bytes(std::string(count * kBlock, fill))));
    for (std::uint64_t i = first; i < first + count; ++i) blocks[i] = {fill};
    if (sync) RK_TRY(engine_->files().sync(*file));
    return engine_->files().flush(*file);
  }
  void write(const std::string& name, std::uint64_t first, std::uint64_t count, char fill) {
    ASSERT_TRUE(try_write(name, first, count, fill, true));
  }

  Status try_copy(const std::string& from, const std::string& to) {
    RK_TRY_ASSIGN(const OpenFilePtr in, open_image(from));
    RK_TRY_ASSIGN(const OpenFilePtr out, open_image(to));
    auto& blocks = versions_[to];
    const auto& source = versions_[from];
    blocks.resize(kBlocks, {'\0'});
    for (std::uint64_t i = 0; i < kBlocks; ++i) blocks[i].insert(source[i].begin(), source[i].end());
    RK_TRY(engine_->files().copy_range(*in, 0, *out, 0, kBlocks * kBlock, kUser));
    for (std::uint64_t i = 0; i < kBlocks; ++i) blocks[i] = source[i];
    return engine_->files().flush(*out);
  }

  // Failures are the point; what was acknowledged is in versions_ and names_.
  void run_workload() {
    static_cast<void>(try_write("plain/a", 1, 2, 'p', true));
    static_cast<void>(try_write("one/b", 0, 3, 'q', false));
    static_cast<void>(try_copy("plain/a", "one/copy"));
    check_content();
    static_cast<void>(try_write("plain/a", 0, 4, 'r', false));
    static_cast<void>(engine_->sync_all());
    deleted_ = engine_->names().unlink(folders_["plain"], "doomed").has_value();
    static_cast<void>(try_write("one/new", 2, 3, 's', true));
    static_cast<void>(engine_->names().rename(folders_["plain"], "a", folders_["plain"], "renamed", RenameMode::no_replace, kUser));
    check_content();
    static_cast<void>(engine_->sync_all());
  }

  // What reads is right; a failing disk may keep it from being read.
  std::size_t check_content() {
    std::size_t unreadable = 0;
    for (const auto& [name, blocks] : versions_) {
      if (name == "plain/doomed" && deleted_) {
        EXPECT_FALSE(engine_->names().lookup(folders_["plain"], "doomed"));
        continue;
      }
      const std::string other = name == "plain/a" ? "renamed" : base_of(name);
      auto found = engine_->names().lookup(folder_of(name), base_of(name));
      if (!found) found = engine_->names().lookup(folder_of(name), other);
      const auto file = found ? engine_->files().open(found->ino, O_RDONLY, kUser) : fail(found.error());
      for (std::uint64_t i = 0; i < kBlocks; ++i) {
        std::string got(kBlock, '\0');
        const auto size = file ? engine_->files().read(**file, i * kBlock, {reinterpret_cast<std::byte*>(got.data()), got.size()}) : fail(file.error());
        const std::set<char>& allowed = blocks[i];
        if (!size && allowed.contains('\0') && !file) continue;  // it never came to be
        if (!size) {
          ++unreadable;
          last_error_ = name + ": " + test::error_text(size);
          continue;
        }
        EXPECT_EQ(got.find_first_not_of(got[0]), std::string::npos) << name << ", block " << i << " is a mixture";
        EXPECT_TRUE(allowed.contains(got[0])) << name << ", block " << i << " is '" << got[0] << "'";
      }
    }
    return unreadable;
  }

  void reopen_and_check() {
    engine_.reset();
    storage_->set_hook(nullptr);
    const Status opened = open();
    ASSERT_TRUE(opened) << test::error_text(opened);
    EXPECT_TRUE(engine_->reports().health());
    EXPECT_EQ(check_content(), 0u) << last_error_;
    ASSERT_TRUE(try_write("one/after", 0, 1, 'z', true));
    EXPECT_TRUE(engine_->close());
    engine_.reset();
  }

  std::unique_ptr<FaultyStorage> storage_;
  std::unique_ptr<Engine> engine_;
  std::map<std::string, Ino> folders_;
  Versions versions_;
  bool deleted_ = false;  // plain/doomed was, and that was acknowledged
  std::string last_error_;
};

struct Fault {
  Errc code;
  bool once;
};

class DiskFaultOperations : public DiskFaultTest, public ::testing::WithParamInterface<int> {};

// Four parts, so that they run side by side.
TEST_P(DiskFaultOperations, NothingWrongIsReadAndNothingAcknowledgedIsLost) {
  constexpr Fault kFaults[] = {{Errc::io, true}, {Errc::no_space, false}, {Errc::no_space, true}, {Errc::io, false}};
  const bool all = test::number_from_environment("REKEYFS_TEST_FAULTS", 1) == 0;
  make_store();
  ASSERT_FALSE(HasFatalFailure());
  std::filesystem::rename(path("store"), path("template"));
  std::filesystem::remove(path("template/reserve"));  // the space in it need not be copied
  const Versions before = versions_;
  bool reached = true;
  for (int n = GetParam(); reached && !HasFailure(); n += 4) {
    for (std::size_t way = 0; way < std::size(kFaults) && !HasFailure(); ++way) {
      if (!all && way != static_cast<std::size_t>(n / 4) % std::size(kFaults)) continue;
      const Fault fault = kFaults[way];
      SCOPED_TRACE("operation " + std::to_string(n) + ": " + std::string(name_of(fault.code)) + (fault.once ? ", once" : ", from then on"));
      std::filesystem::copy(path("template"), path("store"), std::filesystem::copy_options::recursive);
      storage_ = std::make_unique<FaultyStorage>(path("store"));
      versions_ = before;
      deleted_ = false;
      std::atomic<int> count{0};
      storage_->set_hook([&](FaultyStorage::Operation operation, const std::string& where) -> Status {
        const bool writes = operation != FaultyStorage::Operation::read && operation != FaultyStorage::Operation::sync;
        if (fault.code == Errc::no_space && !writes) return {};
        const int now = count++;
        return now == n || (now > n && !fault.once) ? Status(fail(fault.code, "the disk fails at " + where)) : Status();
      });
      if (open()) {
        run_workload();
        static_cast<void>(engine_->close());
      }
      reached = count.load() > n;
      reopen_and_check();
      storage_.reset();
      std::filesystem::remove_all(path("store"));
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Parts, DiskFaultOperations, ::testing::Range(0, 4));

// What the journal speaks of and what cannot be read now may be there all the same. With the record left out, the next
// checkpoint would make that final.
TEST_F(DiskFaultTest, RecoveryDoesNotTakeWhatItCannotReadForMissing) {
  make_store();
  ASSERT_FALSE(HasFatalFailure());
  storage_ = std::make_unique<FaultyStorage>(path("store"));
  ASSERT_TRUE(open());
  ASSERT_TRUE(try_write("plain/a", 0, kBlocks, 'u', false));
  ASSERT_TRUE(try_write("one/b", 0, kBlocks, 'v', false));
  engine_.reset();  // as by a kill: the checkpoint has not come yet
  for (const Errc code : {Errc::io, Errc::too_many_files, Errc::no_memory}) {
    for (const char* file : {".spill", ".table"}) {
      int met = 0;
      storage_->set_hook([&](FaultyStorage::Operation operation, const std::string& where) -> Status {
        const bool reads = operation == FaultyStorage::Operation::read || operation == FaultyStorage::Operation::open;
        if (!reads || where.find(file) == std::string::npos) return {};
        if (met++ > 0 && code != Errc::too_many_files) return {};  // for a descriptor that is missing once, another file is closed
        return fail(code, "the disk fails at " + where);
      });
      const Status opened = open();
      storage_->set_hook(nullptr);
      ASSERT_GT(met, 0) << file;
      ASSERT_FALSE(opened) << name_of(code) << " at " << file;
      EXPECT_EQ(opened.error().code, code);
      EXPECT_THAT(opened.error().message, ::testing::AllOf(::testing::HasSubstr("the disk fails at layers/"),
                                                           ::testing::HasSubstr("nothing was changed: mount it again")));
      engine_.reset();
    }
  }
  reopen_and_check();
}

TEST_F(DiskFaultTest, AFailedSyncMakesTheStoreReadOnlyAndSaysSo) {
  make_store();
  ASSERT_FALSE(HasFatalFailure());
  std::filesystem::rename(path("store"), path("template"));
  std::filesystem::remove(path("template/reserve"));  // the space in it need not be copied
  const Versions before = versions_;
  int failed = 0;
  bool reached = true;
  for (int n = 0; reached && !HasFailure(); ++n) {
    SCOPED_TRACE("sync " + std::to_string(n));
    std::filesystem::copy(path("template"), path("store"), std::filesystem::copy_options::recursive);
    storage_ = std::make_unique<FaultyStorage>(path("store"));
    versions_ = before;
    deleted_ = false;
    ASSERT_TRUE(open());
    std::atomic<int> count{0};
    storage_->set_hook([&](FaultyStorage::Operation operation, const std::string&) -> Status {
      if (operation != FaultyStorage::Operation::sync) return {};
      return count++ == n ? Status(fail(Errc::io, "the disk fails")) : Status();  // the next one would seem to succeed
    });
    run_workload();
    if (count.load() > n) {
      ++failed;
      // Another thread may have met it just now.
      for (int i = 0; i < 100 && engine_->reports().health(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
      const Status health = engine_->reports().health();
      ASSERT_FALSE(health);
      EXPECT_EQ(health.error().code, Errc::read_only);
      EXPECT_THAT(health.error().message, ::testing::HasSubstr("read-only since a failed sync: the disk fails"));
      for (const char* command : {"status", "info"}) {
        const auto answer = fs::serve_command(*engine_, fs::Requester{kUser, {}, kRootIno}, {{"command", command}});
        EXPECT_THAT(answer.at("ok").at("read_only").get<std::string>(), ::testing::HasSubstr("failed sync")) << command;
      }
      EXPECT_EQ(engine_->names().make_directory(kRootIno, "more", 0755, kUser).error().code, Errc::read_only);
      EXPECT_EQ(engine_->names().unlink(folders_["one"], "b").error().code, Errc::read_only);
      EXPECT_EQ(engine_->sync_all().error().code, Errc::read_only);
      EXPECT_EQ(try_write("one/b", 0, 1, 'x', true).error().code, Errc::read_only);
      EXPECT_EQ(check_content(), 0u) << "reading goes on: " << last_error_;
    }
    const bool closed = engine_->close().has_value();
    reached = count.load() > n;
    EXPECT_EQ(closed, !reached);
    reopen_and_check();
    storage_.reset();
    std::filesystem::remove_all(path("store"));
  }
  EXPECT_GT(failed, 4);
}

TEST_F(DiskFaultTest, WithFewDescriptorsAllWorksAndWithoutAnyNothingIsLost) {
  constexpr int kFiles = 100;
  make_store();
  ASSERT_FALSE(HasFatalFailure());
  // Files that are made in the child are on record here, so that the parent can look for them.
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    int made = 0;
    bool refused = false, sound = false;
    if (open()) {
      std::vector<OpenFilePtr> held;
      const auto make = [&](const std::string& name) -> Status {
        RK_TRY_ASSIGN(auto created, engine_->files().create(folders_["one"], name, 0600, 0, kUser));
        held.push_back(std::move(created.file));
        RK_TRY(engine_->files().write(*held.back(), 0, as_bytes(std::string(kBlock, 'm'))));
        return {};
      };
      const rlimit few{48, 48};
      ::setrlimit(RLIMIT_NOFILE, &few);
      while (made < kFiles && make("many" + std::to_string(made))) ++made;
      const rlimit none{3, 48};
      ::setrlimit(RLIMIT_NOFILE, &none);
      const Status more = make("more");
      refused = !more && more.error().code == Errc::too_many_files;
      static_cast<void>(engine_->sync_all());
      ::setrlimit(RLIMIT_NOFILE, &few);  // sanitizers need a descriptor to look at memory
      sound = engine_->reports().health().has_value();  // a sync that could not be begun has not failed
      held.clear();
    }
    const char answer[] = {static_cast<char>(made), refused ? '1' : '0', sound ? '1' : '0'};
    static_cast<void>(!::write(ends[1], answer, sizeof answer));
    ::_exit(0);  // as if it were killed
  }
  ::close(ends[1]);
  char answer[3] = {};
  ASSERT_EQ(::read(ends[0], answer, sizeof answer), 3);
  ::close(ends[0]);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(answer[0], kFiles);
  EXPECT_EQ(answer[1], '1') << "it ran out of descriptors";
  EXPECT_EQ(answer[2], '1') << "the store stays sound";
  for (int i = 0; i < answer[0]; ++i) {
    auto& blocks = versions_["one/many" + std::to_string(i)];
    blocks.resize(kBlocks, {'\0'});
    blocks[0] = {'m'};
  }
  storage_ = std::make_unique<FaultyStorage>(path("store"));
  reopen_and_check();
}

}  // namespace
}  // namespace rekeyfs
