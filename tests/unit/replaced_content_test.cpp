// An image whose content is replaced repeatedly while other threads query it: each query succeeds, with the facts of
// either the old or the new content.
#include <fcntl.h>

#include <atomic>
#include <thread>

#include <gtest/gtest.h>

#include "engine/engine.h"
#include "tests/support/store_copies.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs {
namespace {

class ReplacedContentTest : public test::TempDirectory {};

TEST_F(ReplacedContentTest, IsAlwaysSeenWhole) {
  const Caller user{0, 0, true};
  ASSERT_TRUE(Engine::initialize(path("store"), test::test_credential()));
  auto opened = Engine::open(path("store"), test::test_credential(), {});
  ASSERT_TRUE(opened) << test::error_text(opened);
  Engine& engine = **opened;
  auto made = engine.files().create(kRootIno, "image", 0600, 0, user);
  ASSERT_TRUE(made);
  const Ino ino = made->attributes.ino;

  std::atomic<bool> done{false};
  std::thread replacer([&] {
    const std::string content(100, 'x');
    for (int i = 0; i < 3000; ++i) {
      AttributeChange nothing;
      nothing.size = 0;
      ASSERT_TRUE(engine.files().write(*made->file, 0, as_bytes(content)));
      ASSERT_TRUE(engine.names().setattr(ino, nothing, user));
    }
    done = true;
  });
  int asked = 0;
  for (; !done; ++asked) {
    const auto size = engine.names().getattr(ino);
    EXPECT_TRUE(size) << test::error_text(size);
    for (const char* name : {"user.rekeyfs.encryption", "user.rekeyfs.stored"}) {
      const auto value = engine.names().getxattr(ino, name);
      EXPECT_TRUE(value) << name << ": " << test::error_text(value);
    }
    if (HasFailure()) break;
  }
  replacer.join();
  EXPECT_GT(asked, 10);
  made->file.reset();
  EXPECT_TRUE(engine.close());
}

}  // namespace
}  // namespace rekeyfs
