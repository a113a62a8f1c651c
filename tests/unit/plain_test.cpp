// Nothing becomes plain by accident: what only the engine can be asked, because the kernel would refuse it first.
#include <fcntl.h>

#include <thread>

#include "tests/support/store_copies.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs {
namespace {

const Caller kOwner{1000, 1000};
const Caller kMember{1001, 1000};  // of the owner's group

class PlainTest : public test::TempDirectory {
 protected:
  void SetUp() override {
    TempDirectory::SetUp();
    ASSERT_TRUE(Engine::initialize(path("store"), test::test_credential()));
    auto opened = Engine::open(path("store"), test::test_credential());
    ASSERT_TRUE(opened) << test::error_text(opened);
    engine_ = std::move(*opened);
    ASSERT_TRUE(engine_->keys().create("key", kOperator));
    for (const Caller& user : {kOwner, kMember}) {
      ASSERT_TRUE(engine_->keys().change("key", {.kind = KeyChange::Kind::grant, .user = user.uid}, kOperator));
    }
    const auto folder = engine_->names().make_directory(kRootIno, "folder", 0770, kOwner);
    ASSERT_TRUE(folder);
    folder_ = folder->ino;
    set_key();
    image_ = make("image", "old content");
  }
  void TearDown() override {
    EXPECT_TRUE(engine_->close());
    engine_.reset();
    TempDirectory::TearDown();
  }

  void set_key() { ASSERT_TRUE(engine_->names().setxattr(folder_, "user.rekeyfs.key", "key", XattrMode::either, kOperator)); }
  void drop_key() { ASSERT_TRUE(engine_->names().removexattr(folder_, "user.rekeyfs.key", kOperator)); }
  Ino make(const std::string& name, const std::string& content) {
    auto created = engine_->files().create(folder_, name, 0600, O_RDWR, kOwner);
    EXPECT_TRUE(created) << test::error_text(created);
    if (!created) return {};
    EXPECT_TRUE(engine_->files().write(*created->file, 0, as_bytes(content)));
    EXPECT_TRUE(engine_->files().flush(*created->file));
    return created->attributes.ino;
  }
  std::string encryption_of(Ino ino) { return engine_->names().getxattr(ino, "user.rekeyfs.encryption").value_or("?"); }
  std::string content_of(Ino ino) {
    auto file = engine_->files().open(ino, O_RDONLY, kOperator);
    EXPECT_TRUE(file) << test::error_text(file);
    std::string content(100, '\0');
    const auto size = file ? engine_->files().read(**file, 0, {reinterpret_cast<std::byte*>(content.data()), content.size()}) : 0;
    content.resize(size.value_or(0));
    return content;
  }
  // Opens the image with O_TRUNC and says that its new content is plain.
  Status replace_by_plain(const Caller& caller) {
    RK_TRY_ASSIGN(const OpenFilePtr file, engine_->files().open(image_, O_WRONLY | O_TRUNC, caller));
    TargetChoice plain;
    plain.by = TargetChoice::By::plain;
    const Status chosen = engine_->files().choose_target(*file, plain, caller);
    if (chosen) RK_TRY(engine_->files().write(*file, 0, as_bytes("new content")));
    RK_TRY(engine_->files().flush(*file));
    return chosen;
  }

  std::unique_ptr<Engine> engine_;
  Ino folder_, image_;
};

TEST_F(PlainTest, OnlyTheOwnerSaysThatNewContentIsPlain) {
  drop_key();
  const Status refused = replace_by_plain(kMember);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::not_permitted);
  EXPECT_EQ(content_of(image_), "old content");
  EXPECT_EQ(encryption_of(image_), "kms");
  const Status replaced = replace_by_plain(kOwner);
  EXPECT_TRUE(replaced) << test::error_text(replaced);
  EXPECT_EQ(content_of(image_), "new content");
  EXPECT_EQ(encryption_of(image_), "none");
}

TEST_F(PlainTest, ThatIsSaidForOneReplacement) {
  drop_key();
  {
    auto file = engine_->files().open(image_, O_WRONLY | O_TRUNC, kOwner);
    ASSERT_TRUE(file);
    TargetChoice plain;
    plain.by = TargetChoice::By::plain;
    ASSERT_TRUE(engine_->files().choose_target(**file, plain, kOwner));
  }  // closed without a flush: nothing is replaced
  EXPECT_EQ(content_of(image_), "old content");
  auto file = engine_->files().open(image_, O_WRONLY | O_TRUNC, kMember);
  ASSERT_TRUE(file);
  ASSERT_TRUE(engine_->files().write(**file, 0, as_bytes("new content")));
  ASSERT_TRUE(engine_->files().flush(**file));
  EXPECT_EQ(encryption_of(image_), "kms");
}

TEST_F(PlainTest, NotBelowADirectoryThatIsEncryptedOnly) {
  ASSERT_TRUE(engine_->names().setxattr(kRootIno, "user.rekeyfs.encrypted_only", "1", XattrMode::either, kOperator));
  const Status refused = replace_by_plain(kOwner);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::not_permitted);
  EXPECT_EQ(content_of(image_), "old content");
  EXPECT_FALSE(engine_->names().removexattr(folder_, "user.rekeyfs.key", kOperator));
}

// Whoever replaces the image meanwhile, what has its name afterwards is encrypted.
TEST_F(PlainTest, ARenameThatCompetesWithOthersLeavesNothingPlain) {
  drop_key();
  for (int round = 0; round < 20; ++round) {
    const Ino first = make("first", "first");
    const Ino second = make("second", "second");
    ASSERT_EQ(encryption_of(first) + encryption_of(second), "nonenone");
    std::thread other([&] {
      EXPECT_TRUE(engine_->names().rename(folder_, "first", folder_, "image", RenameMode::replace, kOwner));
    });
    EXPECT_TRUE(engine_->names().rename(folder_, "second", folder_, "image", RenameMode::replace, kOwner));
    other.join();
    const auto left = engine_->names().lookup(folder_, "image");
    ASSERT_TRUE(left);
    ASSERT_EQ(encryption_of(left->ino), "kms");
    const std::string content = content_of(left->ino);
    ASSERT_TRUE(content == "first" || content == "second") << content;
  }
}

TEST_F(PlainTest, ARenameWithoutAGrantChangesNothing) {
  drop_key();
  const Ino replacement = make("replacement", "new content");
  const Status refused = engine_->names().rename(folder_, "replacement", folder_, "image", RenameMode::replace, Caller{1002, 1000});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::access_denied);
  EXPECT_EQ(encryption_of(replacement), "none");
  EXPECT_EQ(content_of(image_), "old content");
}

}  // namespace
}  // namespace rekeyfs
