// DamagedStore: a fixture with a RichStore and a copy of it, which is restored before each attack.
//
// A child process examines the attacked copy, so that a crash or a hang is a failure and does not end the test.
#pragma once

#include <gtest/gtest.h>

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "tests/support/store_image.h"
#include "tests/support/tamper_oracle.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs::test {

class QuietCheck final : public CheckObserver {
 public:
  void progress(std::string_view, std::uint64_t, std::uint64_t) override {}
  void found(const CheckProblem&) override {}
};

class DamagedStore : public TempDirectory {
 protected:
  DamagedStore() : TempDirectory(fast_directory()) {}

  void SetUp() override {
    spdlog::set_level(spdlog::level::off);
    image_ = std::make_unique<StoreImage>(rich_.directory());
    void* shared = ::mmap(nullptr, sizeof(Outcome), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(shared, MAP_FAILED);
    outcome_ = static_cast<Outcome*>(shared);
    image_->restore(victim());
  }
  void TearDown() override {
    ::munmap(outcome_, sizeof(Outcome));
    spdlog::set_level(spdlog::level::info);
  }

  std::string victim() const { return path("victim"); }
  StoreImage older() const { return StoreImage(rich_.older().back()); }
  StoreImage oldest() const { return StoreImage(rich_.older().front()); }
  StoreImage foreign() const { return StoreImage(RichStore(path("foreign")).directory()); }

  // Runs `work` in a child with a limit of one minute, which sanitizers and busy machines need.
  void in_child(const std::string& what, const std::function<void()>& work) {
    *outcome_ = Outcome{};
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::alarm(60);
      work();
      ::_exit(0);
    }
    int state = 0;
    ASSERT_EQ(::waitpid(child, &state, 0), child);
    if (WIFSIGNALED(state))
      ADD_FAILURE() << what << ": " << (WTERMSIG(state) == SIGALRM ? "hangs" : strsignal(WTERMSIG(state)));
    else if (WEXITSTATUS(state) != 0)
      ADD_FAILURE() << what << ": ended with " << WEXITSTATUS(state);
    if (outcome_->wrong[0] != '\0') ADD_FAILURE() << what << ": " << outcome_->wrong;
  }

  // If the directory's policy encrypts images, a new image must be encrypted. If the directory is not writable,
  // creation must fail: a repair removes write permission from a directory whose policy is lost.
  static void write_secret(Engine& engine) {
    for (const char* name : {"vault", "other"}) {
      const auto directory = engine.names().resolve(name);
      const auto attributes = directory ? engine.names().getattr(*directory) : fail(directory.error());
      if (!attributes || !(attributes->permissions & 0200)) continue;
      const auto created =
          directory ? engine.files().create(*directory, "probe.img", 0600, O_RDWR, kOperator) : fail(directory.error());
      if (!created) continue;
      static_cast<void>(engine.files().write(*created->file, 0, as_bytes(rich_content("probe", 200, true))));
      static_cast<void>(engine.files().flush(*created->file));
    }
  }

  void expect_no_marker(const std::string& what) {
    const std::string store = victim();
    std::error_code none;  // ignored: the directory of layers may be missing
    for (const auto& entry : std::filesystem::recursive_directory_iterator(store + "/layers", none)) {
      if (!entry.is_regular_file() || entry.is_symlink()) continue;
      const std::string name = entry.path().string().substr(store.size() + 1);
      if (StoreImage::holds(entry.path(), kSecretMarker))
        ADD_FAILURE() << what << ": " << name << " holds what was to be encrypted";
    }
  }

  std::vector<std::string> files(const std::string& part) const {
    std::vector<std::string> found;
    for (const std::string& file : image_->files())
      if (file.find(part) != std::string::npos) found.push_back(file);
    return found;
  }

  const RichStore rich_{path("store")};
  const Oracle oracle_{rich_};
  std::unique_ptr<StoreImage> image_;
  Outcome* outcome_ = nullptr;
};

}  // namespace rekeyfs::test
