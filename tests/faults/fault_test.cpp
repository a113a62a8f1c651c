// Failures of every call below the store: a workload through the whole engine on real files, in a child process, in
// which the n-th call of a kind fails, for every n, once or permanently, or calls drawn at random fail. The same for
// opening a killed store, checking it and repairing it. It must never crash or hang and never return bytes that were
// not written; acknowledged data must be there when the store is reopened. After a transient error (a full disk, no
// descriptors, no memory) the store must continue by itself; after a failed sync it must be read-only and readable.
// REKEYFS_TEST_FAULTS=k tries k points of each kind instead of 8, 0 tries all.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <map>
#include <set>
#include <thread>

#include <gmock/gmock.h>
#include <openssl/crypto.h>
#include <spdlog/spdlog.h>

#include "engine/base/exceptions.h"
#include "engine/engine.h"
#include "tests/faults/faults.h"
#include "tests/support/environment.h"
#include "tests/support/rich_store.h"
#include "tests/support/store_copies.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs {
namespace {

using namespace std::chrono_literals;
using test::Faults;

constexpr std::uint64_t kBlock = 16384;
constexpr std::uint64_t kBlocks = 6;
constexpr std::int64_t kNever = std::int64_t{1} << 60;
const Caller kUser{0, 0, true};

enum Image { a, doomed, b, copy, fresh, late, kImages };
struct Place {
  bool is_encrypted;
  const char* name;
  const char* other_name;  // after the workload
};
constexpr Place kPlaces[kImages] = {{false, "a", "renamed"}, {false, "doomed", "doomed"}, {true, "b", "b"},
                                    {true, "copy", "copy"},  {true, "fresh", "fresh"},    {true, "late", "late"}};

// What the workload was told. A child process fills it in, in memory that it shares with its parent.
struct Ledger {
  std::uint32_t may_be[kImages][kBlocks];  // bit 0: zeros, or missing with the image; bit 1: 'a', and so on
  bool is_deleted;                         // `doomed`, and that was acknowledged
  bool outlived;                           // the faults: the rest is about the time after them
  bool sound, resumed;
  std::int64_t failed_while_open;
  char trouble[1024];

  void say(const std::string& text) {
    if (trouble[0] == '\0') std::strncpy(trouble, text.c_str(), sizeof trouble - 1);
  }
};
std::uint32_t bit_of(char fill) { return fill == '\0' ? 1u : 2u << (fill - 'a'); }

template <typename T>
T* make_shared_memory() {
  void* const at = ::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) std::abort();
  return new (at) T{};
}

void disarm() { test::rekeyfs_faults()->kinds = 0; }

// A call into the engine, as a request is one: what it calls counts, and what it throws is an error.
template <typename Call>
auto counted(Call call) -> decltype(call()) {
  test::rekeyfs_faults_count_this_thread(true);
  auto result = caught(call);
  test::rekeyfs_faults_count_this_thread(false);
  return result;
}

class Workload {
 public:
  Workload(std::string store, Ino plain, Ino encrypted, Ledger& ledger)
      : store_(std::move(store)), plain_(plain), encrypted_(encrypted), ledger_(ledger) {}

  Status open() {
    OpenOptions options;
    options.filler_workers = 1;
    const Credential credential = test::test_credential();
    return counted([&]() -> Status {
      RK_TRY_ASSIGN(engine_, Engine::open(store_, credential, options));
      return {};
    });
  }
  Engine& engine() { return *engine_; }
  Status close() {
    return counted([&]() -> Status {
      const Status closed = engine_->close();
      engine_.reset();
      return closed;
    });
  }

  // Failures are the point.
  void run() {
    write(a, 1, 2, 'p', true);
    write(b, 0, 3, 'q', false);
    copy_range(a, copy);
    check_content();
    write(a, 0, 4, 'r', false);
    rotate_key();
    wait_for_replica(100ms);
    sync_all();
    rotate_directory();
    unlink_doomed();
    write(fresh, 2, 3, 's', true);
    rename_a();
    truncate_b();
    wait_for_replica(100ms);
    check_content();
    sync_all();
  }

  Status write(Image image, std::uint64_t first, std::uint64_t count, char fill, bool sync) {
    const std::string bytes(count * kBlock, fill);
    for (std::uint64_t i = first; i < first + count; ++i) ledger_.may_be[image][i] |= bit_of(fill);
    OpenFilePtr file;
    Status status = counted([&]() -> Status {
      RK_TRY_ASSIGN(file, open_image(image));
      RK_TRY(engine_->files().write(*file, first * kBlock, as_bytes(bytes)));
      return {};
    });
    if (status)
      for (std::uint64_t i = first; i < first + count; ++i) ledger_.may_be[image][i] = bit_of(fill);
    if (status && sync) status = counted([&] { return engine_->files().sync(*file); });
    if (status) status = counted([&] { return engine_->files().flush(*file); });
    let_go(file);
    return status;
  }

  // The number of blocks that cannot be read; other bytes than may be there are trouble.
  int check_content() {
    int unreadable = 0;
    for (int image = 0; image < kImages; ++image) unreadable += check_image(static_cast<Image>(image));
    return unreadable;
  }

  bool is_replica_normal() {
    const auto found = engine_->names().lookup(encrypted_, "copy");
    if (!found) return true;
    const auto status = engine_->names().getxattr(found->ino, "user.rekeyfs.status");
    return status && status->starts_with("normal");
  }
  void wait_for_replica(std::chrono::milliseconds most) {
    for (auto waited = 0ms; waited < most && !is_replica_normal(); waited += 2ms) std::this_thread::sleep_for(2ms);
  }
  Status sync_all() {
    return counted([&] { return engine_->sync_all(); });
  }

 private:
  Ino folder_of(Image image) const { return kPlaces[image].is_encrypted ? encrypted_ : plain_; }

  Result<Attributes> find(Image image) {
    auto found = engine_->names().lookup(folder_of(image), kPlaces[image].name);
    if (!found && found.error().code == Errc::not_found) found = engine_->names().lookup(folder_of(image), kPlaces[image].other_name);
    return found;
  }
  Result<OpenFilePtr> open_image(Image image) {
    const auto found = find(image);
    if (found) return engine_->files().open(found->ino, O_RDWR, kUser);
    if (found.error().code != Errc::not_found) return fail(found.error());
    RK_TRY_ASSIGN(Files::Created made, engine_->files().create(folder_of(image), kPlaces[image].name, 0600, 0, kUser));
    return std::move(made.file);
  }
  void let_go(OpenFilePtr& file) {
    static_cast<void>(counted([&]() -> Status {
      file.reset();
      return {};
    }));
  }

  void copy_range(Image from, Image to) {
    for (std::uint64_t i = 0; i < kBlocks; ++i) ledger_.may_be[to][i] |= ledger_.may_be[from][i] | 1u;
    OpenFilePtr in, out;
    const Status copied = counted([&]() -> Status {
      RK_TRY_ASSIGN(in, open_image(from));
      RK_TRY_ASSIGN(out, open_image(to));
      RK_TRY_ASSIGN(const std::uint64_t size, engine_->files().copy_range(*in, 0, *out, 0, kBlocks * kBlock, kUser));
      return size == kBlocks * kBlock ? Status{} : fail(Errc::io, "a part only");
    });
    if (copied)
      for (std::uint64_t i = 0; i < kBlocks; ++i) ledger_.may_be[to][i] = ledger_.may_be[from][i];
    if (out) static_cast<void>(counted([&] { return engine_->files().flush(*out); }));
    let_go(out);
    let_go(in);
  }
  void rotate_key() {
    static_cast<void>(counted([&]() -> Status {
      RK_TRY(engine_->keys().change("tenant", KeyChange{}, kUser));
      return {};
    }));
  }
  void rotate_directory() {
    static_cast<void>(counted([&]() -> Status {
      RK_TRY(engine_->keys().rotate_directory(encrypted_, "second", kUser));
      return {};
    }));
  }
  void unlink_doomed() {
    for (auto& block : ledger_.may_be[doomed]) block |= 1u;
    ledger_.is_deleted = counted([&] { return engine_->names().unlink(plain_, "doomed"); }).has_value();
  }
  void rename_a() {
    static_cast<void>(counted([&] { return engine_->names().rename(plain_, "a", plain_, "renamed", RenameMode::no_replace, kUser); }));
  }
  void truncate_b() {
    for (std::uint64_t i = 2; i < kBlocks; ++i) ledger_.may_be[b][i] |= 1u;
    const Status done = counted([&]() -> Status {
      RK_TRY_ASSIGN(const Attributes found, find(b));
      AttributeChange change;
      change.size = 2 * kBlock;
      RK_TRY(engine_->names().setattr(found.ino, change, kUser));
      return {};
    });
    if (!done) return;
    for (std::uint64_t i = 2; i < kBlocks; ++i) ledger_.may_be[b][i] = 1u;
  }

  int check_image(Image image) {
    const std::string name = kPlaces[image].name;
    const auto found = counted([&] { return find(image); });
    if (image == doomed && ledger_.is_deleted) {
      if (found) ledger_.say("a deleted image is back");
      return 0;
    }
    OpenFilePtr file;
    Status opened = found ? Status{} : fail(found.error());
    if (found)
      opened = counted([&]() -> Status {
        RK_TRY_ASSIGN(file, engine_->files().open(found->ino, O_RDONLY, kUser));
        return {};
      });
    int unreadable = 0;
    std::string got(kBlock, '\0');
    for (std::uint64_t i = 0; i < kBlocks; ++i) {
      const std::uint32_t may_be = ledger_.may_be[image][i];
      if (!found && found.error().code == Errc::not_found) {
        if ((may_be & 1u) == 0) ledger_.say(name + " is not there");
        continue;
      }
      std::fill(got.begin(), got.end(), '\0');
      const auto size = !opened ? fail(opened.error()) : counted([&] {
        return engine_->files().read(*file, i * kBlock, {reinterpret_cast<std::byte*>(got.data()), got.size()});
      });
      if (!size) {
        ++unreadable;
        last_error_ = name + ": " + std::string(name_of(size.error().code)) + ": " + size.error().message;
        continue;
      }
      const std::string where = name + ", block " + std::to_string(i);
      const bool mixed = got.find_first_not_of(got[0]) != std::string::npos;
      if (mixed) ledger_.say(where + " is a mixture");
      else if ((may_be & bit_of(got[0])) == 0) ledger_.say(where + " is '" + got[0] + "'");
    }
    let_go(file);
    return unreadable;
  }

  const std::string store_;
  const Ino plain_, encrypted_;
  Ledger& ledger_;
  std::unique_ptr<Engine> engine_;

 public:
  std::string last_error_;
};

struct Fault {
  Faults::Kind kind;
  int error;
  std::int64_t many;  // calls that fail, from the n-th on
  const char* name;
  std::int64_t one_in = 0;  // if not 0, one call in so many fails instead, and n draws which
  // Does it pass, so that the store goes on?
  bool passes() const { return error != EIO; }
  bool is_failed_sync() const { return (kind == Faults::sync || kind == Faults::commit) && error == EIO; }
};
void PrintTo(const Fault& fault, std::ostream* out) { *out << fault.name; }  // GoogleTest's name for it

constexpr auto kFiles = static_cast<Faults::Kind>(Faults::read | Faults::write | Faults::open | Faults::space | Faults::names);
constexpr auto kSpace = static_cast<Faults::Kind>(Faults::write | Faults::space | Faults::names);
constexpr auto kMemory = static_cast<Faults::Kind>(Faults::memory | Faults::libraries_memory);

constexpr Fault kFaults[] = {
    {Faults::read, EIO, 1, "ReadEioOnce"},          {Faults::read, EIO, kNever, "ReadEioForEver"},
    {Faults::read, ENOMEM, 1, "ReadEnomemOnce"},    {Faults::write, EIO, 1, "WriteEioOnce"},
    {Faults::write, EIO, kNever, "WriteEioForEver"}, {Faults::write, ENOSPC, 1, "WriteEnospcOnce"},
    {Faults::write, ENOSPC, kNever, "WriteEnospcForEver"}, {Faults::write, EDQUOT, kNever, "WriteEdquotForEver"},
    {Faults::sync, EIO, 1, "SyncEioOnce"},          {Faults::sync, EIO, kNever, "SyncEioForEver"},
    {Faults::sync, ENOSPC, 1, "SyncEnospcOnce"},    {Faults::open, EMFILE, 1, "OpenEmfileOnce"},
    {Faults::open, EMFILE, kNever, "OpenEmfileForEver"}, {Faults::open, ENFILE, 1, "OpenEnfileOnce"},
    {Faults::space, ENOSPC, 1, "SpaceEnospcOnce"},  {Faults::space, ENOSPC, kNever, "SpaceEnospcForEver"},
    {Faults::names, EIO, 1, "NamesEioOnce"},        {Faults::names, ENOSPC, kNever, "NamesEnospcForEver"},
    {Faults::memory, ENOMEM, 1, "MemoryOnce"},      {Faults::memory, ENOMEM, 40, "MemoryFortyTimes"},
    {Faults::memory, ENOMEM, kNever, "MemoryForEver"}, {Faults::commit, EIO, 1, "CommitEioOnce"},
    {Faults::commit, ENOSPC, 1, "CommitEnospcOnce"}, {Faults::libraries_memory, ENOMEM, 1, "LibrariesMemoryOnce"},
    {Faults::libraries_memory, ENOMEM, 40, "LibrariesMemoryFortyTimes"},
    {Faults::libraries_memory, ENOMEM, kNever, "LibrariesMemoryForEver"},
    {kFiles, EIO, 0, "FilesEioNowAndThen", 40},     {kFiles, ENOMEM, 0, "FilesEnomemNowAndThen", 40},
    {kSpace, ENOSPC, 0, "SpaceEnospcNowAndThen", 20}, {Faults::open, EMFILE, 0, "OpenEmfileNowAndThen", 8},
    {kMemory, ENOMEM, 0, "MemoryNowAndThen", 400},
};

void arm(const Fault& fault, std::int64_t first) {
  Faults& faults = *test::rekeyfs_faults();
  faults.kinds = 0;
  faults.calls = faults.failed = 0;
  faults.error = fault.error;
  faults.first = first;
  faults.last = first > kNever ? first : first + fault.many - 1;
  faults.one_in = first > kNever ? 0 : fault.one_in;
  faults.kinds = fault.kind;
}

class FaultTest : public test::TempDirectory, public ::testing::WithParamInterface<Fault> {
 protected:
  FaultTest() : TempDirectory(test::fast_directory()) {}

  void SetUp() override {
    spdlog::set_level(spdlog::level::off);
    OPENSSL_free(OPENSSL_malloc(1));  // from now on it keeps to malloc(), which fails here, and not to secret memory
    test::rekeyfs_faults_count_this_thread(false);
    disarm();
    ledger_ = make_shared_memory<Ledger>();
    make_template();
  }
  void TearDown() override {
    disarm();
    ::munmap(ledger_, sizeof(Ledger));
  }

  // Left by a kill, so that opening it recovers.
  void make_template() {
    ASSERT_TRUE(Engine::initialize(path("store"), test::test_credential()));
    {
      Workload first(path("store"), {}, {}, *ledger_);
      ASSERT_TRUE(first.open());
      for (const char* key : {"tenant", "second"}) ASSERT_TRUE(first.engine().keys().create(key, kUser));
      plain_ = first.engine().names().make_directory(kRootIno, "plain", 0755, kUser)->ino;
      encrypted_ = first.engine().names().make_directory(kRootIno, "one", 0755, kUser)->ino;
      ASSERT_TRUE(first.engine().names().setxattr(encrypted_, "user.rekeyfs.key", "tenant", XattrMode::either, kUser));
      ASSERT_TRUE(first.close());
    }
    for (auto& image : ledger_->may_be)
      for (auto& block : image) block = 1u;
    Workload killed(path("store"), plain_, encrypted_, *ledger_);
    ASSERT_TRUE(killed.open());
    for (const Image image : {a, doomed, b}) ASSERT_TRUE(killed.write(image, 0, kBlocks, 'o', image == a));
    test::copy_as_killed(path("store"), path("template"));
    std::filesystem::remove(path("template/reserve"));  // the space in it need not be copied
    ASSERT_TRUE(killed.close());
    std::filesystem::remove_all(path("store"));
    before_ = *ledger_;
  }

  // Runs `work` in a child process over a fresh copy of the store; how it ended. How many calls there were is in Faults.
  template <typename Work>
  int in_child(Work work) {
    std::filesystem::remove_all(path("store"));
    std::filesystem::copy(path("template"), path("store"), std::filesystem::copy_options::recursive);
    *ledger_ = before_;
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(100);  // a hang is a failure
      work();
      ::_exit(0);  // as if it were killed, if it has not closed the store
    }
    int status = -1;
    ::waitpid(child, &status, 0);
    disarm();
    return status;
  }

  enum class End { closed, killed, killed_at_once };  // at once: while calls still fail
  static End end_of(std::int64_t n) { return static_cast<End>(n % 3); }
  void run_workload(End end) {
    Workload workload(path("store"), plain_, encrypted_, *ledger_);
    if (!workload.open()) return;
    const std::int64_t failed_before = test::rekeyfs_faults()->failed;
    workload.run();
    if (end == End::killed_at_once) ::_exit(0);
    ledger_->outlived = true;
    ledger_->failed_while_open = test::rekeyfs_faults()->failed - failed_before;
    disarm();
    std::this_thread::sleep_for(20ms);  // what another thread met just now is known by then
    ledger_->sound = workload.engine().reports().health().has_value();
    if (workload.check_content() > 0) ledger_->say("cannot be read: " + workload.last_error_);
    if (ledger_->sound) {
      ledger_->resumed = workload.write(late, 0, 2, 't', true).has_value() && workload.sync_all().has_value();
      workload.wait_for_replica(8s);
      if (!workload.is_replica_normal()) ledger_->say("the replica does not become normal");
    } else {
      const auto refused = workload.engine().names().make_directory(kRootIno, "more", 0755, kUser);
      if (refused || refused.error().code != Errc::read_only) ledger_->say("is not read-only");
    }
    if (end == End::killed) ::_exit(0);
    if (!workload.close() && ledger_->sound) ledger_->say("cannot be closed");
  }

  void check_store(const Fault& fault) {
    EXPECT_STREQ(ledger_->trouble, "") << "in the faulty process";
    if (ledger_->outlived && fault.is_failed_sync()) {
      EXPECT_EQ(ledger_->sound, ledger_->failed_while_open == 0) << "a failed sync, and only that, ends writing";
    }
    if (ledger_->outlived && fault.passes()) {
      EXPECT_TRUE(ledger_->sound) << "what passes does not end writing";
      EXPECT_TRUE(ledger_->resumed) << "it goes on by itself";
    }
    open_and_check();
  }

  Result<CheckReport> check_all(const Credential& credential, bool repair = false) const {
    struct Silent final : CheckObserver {
      void progress(std::string_view, std::uint64_t, std::uint64_t) override {}
      void found(const CheckProblem&) override {}
    } silent;
    CheckOptions options;
    options.read_data = true;
    options.repair = repair;
    return Engine::check(path("store"), credential, options, silent);
  }

  void open_and_check() {
    Workload again(path("store"), plain_, encrypted_, *ledger_);
    const Status opened = again.open();
    ASSERT_TRUE(opened) << test::error_text(opened);
    EXPECT_EQ(again.check_content(), 0) << again.last_error_;
    EXPECT_STREQ(ledger_->trouble, "") << "when it is opened again";
    EXPECT_TRUE(again.write(fresh, 0, 1, 'z', true));
    EXPECT_TRUE(again.close());
    const auto report = check_all(test::test_credential());
    ASSERT_TRUE(report) << test::error_text(report);
    for (const CheckProblem& problem : report->problems) ADD_FAILURE() << problem.path << ": " << problem.what;
  }

  // A check, or a repair, at each point; `verify` looks at the store that it leaves.
  template <typename Verify>
  void fail_while_checking(bool repair, Verify verify) {
    const Fault& fault = GetParam();
    const auto check = [&] {
      const Credential credential = test::test_credential();
      static_cast<void>(counted([&] { return check_all(credential, repair); }));
    };
    arm(fault, 2 * kNever);
    ASSERT_EQ(in_child(check), 0);
    const std::int64_t total = test::rekeyfs_faults()->calls;
    std::int64_t tried = 0;
    for (const std::int64_t n : points(total)) {
      SCOPED_TRACE(std::string(fault.name) + ": call " + std::to_string(n) + " of " + std::to_string(total));
      arm(fault, n);
      EXPECT_EQ(in_child(check), 0) << "how the process ended";
      ++tried;
      verify();
      if (HasFailure()) return;
    }
    std::printf("%s, %s: %lld points of %lld\n", fault.name, repair ? "repair" : "check", static_cast<long long>(tried),
                static_cast<long long>(total));
  }

  std::vector<std::int64_t> points(std::int64_t total) {
    const auto wanted = static_cast<std::int64_t>(test::number_from_environment("REKEYFS_TEST_FAULTS", 8));
    const bool all = wanted == 0;
    const auto seed = test::number_from_environment("REKEYFS_TEST_SEED", 1);
    std::set<std::int64_t> some;
    std::mt19937_64 random(seed);
    for (std::int64_t n = 0; n < total && (all || n < wanted); ++n)
      some.insert(all ? n : (n * total + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(total))) / std::min(wanted, total));
    return {some.begin(), some.end()};
  }

  Ledger* ledger_ = nullptr;
  Ledger before_{};
  Ino plain_, encrypted_;
};

TEST_P(FaultTest, NothingAcknowledgedIsLost) {
  const Fault& fault = GetParam();
  arm(fault, 2 * kNever);  // to count
  ASSERT_EQ(in_child([&] { run_workload(End::closed); }), 0);
  const std::int64_t total = test::rekeyfs_faults()->calls;
  check_store(Fault{Faults::read, EIO, 0, ""});
  ASSERT_GT(total, 0);
  std::int64_t tried = 0, met = 0;
  for (const std::int64_t n : points(total)) {
    SCOPED_TRACE(std::string(fault.name) + ": call " + std::to_string(n) + " of " + std::to_string(total));
    arm(fault, n);
    EXPECT_EQ(in_child([&] { run_workload(end_of(n)); }), 0) << "how the process ended";
    ++tried;
    met += test::rekeyfs_faults()->failed > 0 ? 1 : 0;
    check_store(fault);
    if (HasFailure()) return;
  }
  RecordProperty("points", std::to_string(tried));
  std::printf("%s: %lld points of %lld, %lld met\n", fault.name, static_cast<long long>(tried), static_cast<long long>(total),
              static_cast<long long>(met));
}

TEST_P(FaultTest, ACheckLosesNothing) {
  fail_while_checking(false, [&] { open_and_check(); });
}

// A store that lost a page of its catalog, and a repair of it in which calls fail: the next one does what that one would
// have done.
class RepairTest : public FaultTest {
 protected:
  void SetUp() override {
    FaultTest::SetUp();
    fill_catalog();
    damage_catalog();
  }

  // All of the store is there, and it has several pages.
  void fill_catalog() {
    ASSERT_EQ(in_child([&] {
      Workload filling(path("store"), plain_, encrypted_, *ledger_);
      if (!filling.open()) ::_exit(1);
      for (int i = 0; i < 200; ++i)
        if (!filling.engine().names().make_directory(plain_, "directory-" + std::to_string(i), 0755, kUser)) ::_exit(2);
      ::_exit(filling.close() ? 0 : 3);
    }), 0);
    std::filesystem::remove_all(path("template"));
    std::filesystem::rename(path("store"), path("template"));
    std::filesystem::remove(path("template/reserve"));
  }

  // A page without which the store is refused, and is whole again after a repair: of names, say.
  void damage_catalog() {
    constexpr std::uint64_t kPage = 4096;
    const std::string catalog = path("template/catalog/data.mdb");
    std::fstream file(catalog, std::ios::in | std::ios::out | std::ios::binary);
    for (std::uint64_t page = 2; page * kPage < std::filesystem::file_size(catalog); ++page) {
      const auto at = static_cast<std::streamoff>(page * kPage);
      std::string whole(kPage, '\0');
      file.seekg(at).read(whole.data(), kPage);
      file.seekp(at).write(std::string(kPage, 'x').data(), kPage).flush();
      const int refused = in_child([&] {
        Workload damaged(path("store"), plain_, encrypted_, *ledger_);
        ::_exit(damaged.open() ? 1 : 0);
      });
      whole_ = refused == 0 ? repaired() : std::multiset<std::string>{};
      if (whole_.size() == kImagesBefore) return;
      file.seekp(at).write(whole.data(), kPage).flush();
    }
    FAIL() << "no page of the catalog can be lost so";
  }
  // The images after a repair that meets nothing; none where the store stays as it is.
  std::multiset<std::string> repaired() {
    std::multiset<std::string> images;
    if (!check_all(test::test_credential(), true)) return images;
    const auto engine = Engine::open(path("store"), test::test_credential());
    if (!engine) return images;
    for (const auto& [name, node] : test::look_at(**engine)) {
      if (node.kind != NodeKind::image) continue;
      std::string image = node.encryption;
      for (std::uint64_t block = 0; block < kBlocks; ++block)
        image += node.unreadable.contains(block) ? '!' : node.content.at(block * kBlock);
      images.insert(std::move(image));
    }
    EXPECT_TRUE((*engine)->close());
    return images;
  }

  static constexpr std::size_t kImagesBefore = 3;
  std::multiset<std::string> whole_;  // the images after a repair without faults
};

TEST_P(RepairTest, TheNextOneDoesIt) {
  ASSERT_EQ(whole_.size(), kImagesBefore);
  fail_while_checking(true, [&] { EXPECT_EQ(repaired(), whole_); });
}

// What the journal holds must not be taken for torn because there was no memory to look at it. Each allocation of
// opening a store that was killed fails once.
class OpeningWithoutMemoryTest : public FaultTest {};

TEST_P(OpeningWithoutMemoryTest, LosesNothing) {
  const Fault& fault = GetParam();
  const auto open = [&] {
    Workload opening(path("store"), plain_, encrypted_, *ledger_);
    Status opened = opening.open();
    disarm();
    if (!opened) opened = opening.open();
    if (!opened) ledger_->say("cannot be opened: " + opened.error().message);
    else if (opening.check_content() > 0) ledger_->say("cannot be read: " + opening.last_error_);
    ::_exit(0);
  };
  std::int64_t n = 0;
  for (bool failed = true; failed; ++n) {
    SCOPED_TRACE(std::string(fault.name) + ": call " + std::to_string(n));
    arm(fault, n);
    ASSERT_EQ(in_child(open), 0) << "how the process ended";
    failed = test::rekeyfs_faults()->failed > 0;
    ASSERT_STREQ(ledger_->trouble, "");
  }
  EXPECT_GT(n, 100);
}

// A record in the journal and an error for an answer would be half of a change. Each allocation fails once.
class ChangeWithoutMemoryTest : public test::TempDirectory {};

TEST_F(ChangeWithoutMemoryTest, IsNotThereNorAfterAKill) {
  spdlog::set_level(spdlog::level::off);
  test::rekeyfs_faults_count_this_thread(false);
  ASSERT_TRUE(Engine::initialize(path("store"), test::test_credential()));
  auto engine = Engine::open(path("store"), test::test_credential());
  ASSERT_TRUE(engine) << test::error_text(engine);
  std::map<std::string, bool> made;
  for (std::int64_t n = 0;; ++n) {
    const std::string name = "directory-" + std::to_string(n);
    arm(Fault{Faults::memory, ENOMEM, 1, ""}, n);
    made[name] = counted([&]() -> Status {
      RK_TRY((*engine)->names().make_directory(kRootIno, name, 0755, kUser));
      return {};
    }).has_value();
    disarm();
    EXPECT_EQ((*engine)->names().lookup(kRootIno, name).has_value(), made[name]) << name;
    if (test::rekeyfs_faults()->failed == 0) break;
  }
  EXPECT_GT(made.size(), 10u);
  test::copy_as_killed(path("store"), path("killed"));
  const auto again = Engine::open(path("killed"), test::test_credential());
  ASSERT_TRUE(again) << test::error_text(again);
  for (const auto& [name, is_there] : made) EXPECT_EQ((*again)->names().lookup(kRootIno, name).has_value(), is_there) << name;
}

std::string name_of_fault(const ::testing::TestParamInfo<Fault>& fault) { return fault.param.name; }
INSTANTIATE_TEST_SUITE_P(Calls, FaultTest, ::testing::ValuesIn(kFaults), name_of_fault);
// What the disk does not give, a repair takes for lost; but it asks more than once.
std::vector<Fault> faults_of_a_repair() {
  std::vector<Fault> faults(std::begin(kFaults), std::end(kFaults));
  std::erase_if(faults, [](const Fault& fault) { return (fault.kind & Faults::read) != 0 && fault.error == EIO && fault.many != 1; });
  return faults;
}
INSTANTIATE_TEST_SUITE_P(Calls, RepairTest, ::testing::ValuesIn(faults_of_a_repair()), name_of_fault);
INSTANTIATE_TEST_SUITE_P(Calls, OpeningWithoutMemoryTest,
                         ::testing::Values(Fault{Faults::memory, ENOMEM, 1, "Memory"},
                                           Fault{Faults::libraries_memory, ENOMEM, 1, "LibrariesMemory"}),
                         name_of_fault);

}  // namespace
}  // namespace rekeyfs
