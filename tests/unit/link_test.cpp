// Hard links: an image outlives the name and the directory that it was created with.
#include <map>

#include <fcntl.h>

#include "tests/support/store_copies.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs {
namespace {

class LinkTest : public test::TempDirectory {};

TEST_F(LinkTest, AnImageStaysUsableAfterTheDirectoryOfItsFirstNameIsGone) {
  const Caller root{0, 0, true};
  ASSERT_TRUE(Engine::initialize(path("store"), test::test_credential()));
  auto opened = Engine::open(path("store"), test::test_credential());
  ASSERT_TRUE(opened) << test::error_text(opened);
  const std::unique_ptr<Engine> engine = std::move(*opened);
  const auto first = engine->names().make_directory(kRootIno, "first", 0755, root);
  const auto second = engine->names().make_directory(kRootIno, "second", 0755, root);
  ASSERT_TRUE(first && second);
  {
    auto created = engine->files().create(first->ino, "image", 0600, O_RDWR, root);
    ASSERT_TRUE(created) << test::error_text(created);
    ASSERT_TRUE(engine->files().write(*created->file, 0, as_bytes("content")));
    ASSERT_TRUE(engine->files().flush(*created->file));
    ASSERT_TRUE(engine->names().link(created->attributes.ino, second->ino, "image"));
  }
  ASSERT_TRUE(engine->names().unlink(first->ino, "image"));
  ASSERT_TRUE(engine->names().remove_directory(kRootIno, "first"));

  const auto found = engine->names().lookup(second->ino, "image");
  ASSERT_TRUE(found) << test::error_text(found);
  const auto linked = engine->names().link(found->ino, second->ino, "again");
  EXPECT_TRUE(linked) << test::error_text(linked);
  auto truncated = engine->files().open(found->ino, O_WRONLY | O_TRUNC, root);
  ASSERT_TRUE(truncated) << test::error_text(truncated);
  const auto written = engine->files().write(**truncated, 0, as_bytes("new"));
  EXPECT_TRUE(written) << test::error_text(written);
  ASSERT_TRUE(engine->files().flush(**truncated));
  const auto info = engine->reports().info(found->ino);
  ASSERT_TRUE(info) << test::error_text(info);
  EXPECT_EQ(info->path, "/second/image");
  truncated->reset();
  EXPECT_TRUE(engine->close());
}

TEST_F(LinkTest, WhenANameGoesAnotherIsOnRecord) {
  const Caller root{0, 0, true};
  ASSERT_TRUE(Engine::initialize(path("store"), test::test_credential()));
  auto opened = Engine::open(path("store"), test::test_credential());
  ASSERT_TRUE(opened) << test::error_text(opened);
  const std::unique_ptr<Engine> engine = std::move(*opened);
  const auto first = engine->names().make_directory(kRootIno, "first", 0755, root);
  const auto second = engine->names().make_directory(kRootIno, "second", 0755, root);
  ASSERT_TRUE(first && second);
  std::map<std::string, Ino> images;  // by the name that stays
  const auto make = [&](const std::string& name, Ino directory, const std::string& other) {
    auto created = engine->files().create(first->ino, name, 0600, O_RDWR, root);
    ASSERT_TRUE(created) << test::error_text(created);
    ASSERT_TRUE(engine->names().link(created->attributes.ino, directory, other));
    images[(directory == first->ino ? "/first/" : "/second/") + other] = created->attributes.ino;
  };
  make("a", first->ino, "beside a");
  make("b", second->ino, "elsewhere");
  make("c", second->ino, "where c was replaced");
  ASSERT_TRUE(engine->files().create(second->ino, "replacement", 0600, O_RDWR, root));
  ASSERT_TRUE(engine->names().unlink(first->ino, "a"));
  ASSERT_TRUE(engine->names().unlink(first->ino, "b"));
  ASSERT_TRUE(engine->names().rename(second->ino, "replacement", first->ino, "c", RenameMode::replace, root));
  for (const auto& [path, ino] : images) {
    const auto info = engine->reports().info(ino);
    ASSERT_TRUE(info) << test::error_text(info);
    EXPECT_EQ(info->path, path);
  }
  ASSERT_TRUE(engine->close());
}

}  // namespace
}  // namespace rekeyfs
