// The commands of fs/control.h on a real store.
#include <filesystem>
#include <memory>
#include <string>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "engine/engine.h"
#include "fs/control.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs::fs {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr Caller kRoot{0, 0, true};
constexpr Caller kAlice{64001, 64001}, kBob{64002, 64002};  // whoever runs the tests is neither

class ControlTest : public test::TempDirectory {
 protected:
  void SetUp() override {
    const Credential credential(Credential::Kind::key_file, std::string(32, 'k'));
    ASSERT_TRUE(Engine::initialize(path("store"), credential));
    OpenOptions options;
    options.filler_workers = 0;  // a replication stays one until somebody reads
    options.user_keys = 3;
    options.user_keys = 100;
    auto engine = Engine::open(path("store"), credential, options);
    ASSERT_TRUE(engine) << describe(engine.error());
    engine_ = std::move(*engine);
  }
  void TearDown() override {
    if (engine_) {
      EXPECT_TRUE(engine_->close());
    }
  }

  // As fs/authority.h says, root is an operator through the root directory only.
  Result<json> call(json request, Ino directory = kRootIno, Caller caller = kRoot) {
    caller.is_operator = caller.is_operator && directory == kRootIno;
    return read_answer(serve_command(*engine_, Requester{caller, {}, directory}, request));
  }
  Errc error_of(json request, Ino directory = kRootIno, const Caller& caller = kRoot) {
    Result<json> answer = call(std::move(request), directory, caller);
    EXPECT_FALSE(answer) << answer->dump();
    return answer ? Errc::invalid : answer.error().code;
  }

  Ino make_directory(const std::string& name) {
    return engine_->names().make_directory(kRootIno, name, 0755, kRoot).value().ino;
  }
  // A directory whose images are encrypted with a key of Alice's.
  Ino make_encrypted(const std::string& name) {
    EXPECT_TRUE(call({{"command", "key-create"}, {"alias", name}}, kRootIno, kAlice));
    Ino directory = make_directory(name);
    EXPECT_TRUE(engine_->names().setxattr(directory, "user.rekeyfs.key", name, XattrMode::either, kRoot));
    return directory;
  }
  Ino make_image(Ino parent, const std::string& name, std::size_t size = kSize) {
    Files::Created created = engine_->files().create(parent, name, 0600, O_RDWR, kRoot).value();
    const std::string content(size, 'x');
    EXPECT_EQ(engine_->files().write(*created.file, 0, as_bytes(content)).value(), size);
    EXPECT_TRUE(engine_->files().flush(*created.file));
    return created.attributes.ino;
  }
  // What cp(1) does. True if it was let.
  bool copy(Ino source, Ino directory, const std::string& name) {
    OpenFilePtr in = engine_->files().open(source, O_RDONLY, kRoot).value();
    Files::Created out = engine_->files().create(directory, name, 0600, O_WRONLY, kRoot).value();
    bool copied = engine_->files().copy_range(*in, 0, *out.file, 0, kSize, kRoot).has_value();
    bool flushed = engine_->files().flush(*out.file).has_value();
    return copied && flushed;
  }

  static constexpr std::size_t kSize = 1 << 20;
  std::unique_ptr<Engine> engine_;
};

TEST_F(ControlTest, SessionNamesTheProcessAndTheStore) {
  json session = call({{"command", "session"}}).value();
  EXPECT_EQ(session.at("pid"), getpid());
  EXPECT_EQ(session.at("store"), engine_->store_path());
  EXPECT_THAT(session.at("version").get<std::string>(), HasSubstr("."));
}

TEST_F(ControlTest, SyncMakesEverythingDurable) {
  make_image(kRootIno, "x");
  const std::filesystem::path table = path("store/layers");
  auto tables = [&] {
    std::size_t found = 0;
    for (const auto& file : std::filesystem::recursive_directory_iterator(table)) found += file.path().extension() == ".table";
    return found;
  };
  ASSERT_EQ(tables(), 0U) << "the checkpoint of the background came first";
  EXPECT_EQ(call({{"command", "sync"}}, kRootIno).value(), json::object());
  EXPECT_EQ(tables(), 1U);
  EXPECT_EQ(error_of({{"command", "sync"}}, kRootIno, kBob), Errc::not_permitted);
}

TEST_F(ControlTest, WhatIsNoRequestIsRefusedInWords) {
  EXPECT_EQ(error_of({{"command", "fly"}}), Errc::not_supported);
  EXPECT_EQ(error_of(json::array()), Errc::invalid);
  EXPECT_EQ(error_of(json::object()), Errc::invalid);
  EXPECT_EQ(error_of({{"command", 7}}), Errc::invalid);
  EXPECT_EQ(error_of({{"command", "info"}, {"path", 7}}), Errc::invalid);
  EXPECT_EQ(error_of({{"command", "key-create"}}), Errc::invalid);
  EXPECT_THAT(call({{"command", "fly"}}).error().message, HasSubstr("\"fly\""));
}

TEST_F(ControlTest, SessionTellsOthersOnlyTheVersion) {
  const json session = call({{"command", "session"}}, kRootIno, kAlice).value();
  EXPECT_TRUE(session.at("store").is_null());
  EXPECT_TRUE(session.at("pid").is_null());
  EXPECT_THAT(session.at("version").get<std::string>(), HasSubstr("."));
}

TEST_F(ControlTest, APathIsNamesFromTheDirectoryOn) {
  Ino directory = make_directory("a");
  make_image(directory, "x");
  EXPECT_TRUE(call({{"command", "info"}, {"path", "x"}}, directory));
  EXPECT_EQ(call({{"command", "info"}, {"path", "a/x"}}).value().at("path"), "/a/x");
  EXPECT_EQ(call({{"command", "info"}, {"path", "/a//x"}}).value().at("path"), "/a/x");
  for (const char* name : {".", "..", "a/../a", ""})
    EXPECT_EQ(error_of({{"command", "info"}, {"path", name}}), Errc::invalid) << name;
  EXPECT_EQ(error_of({{"command", "info"}, {"path", "a/x/y"}}), Errc::not_directory);
  EXPECT_EQ(error_of({{"command", "info"}, {"path", std::string("a\0x", 3)}}), Errc::invalid);
  EXPECT_EQ(error_of({{"command", "info"}, {"path", "missing"}}), Errc::not_found);
}

TEST_F(ControlTest, ANameNeedNotBeUtf8) {
  const std::string latin =
      "gr\xf6\xdf"
      "e";
  Ino ino = make_image(kRootIno, latin);
  json request{{"command", "info"}};
  put_path(request, latin);
  json info = call(json::parse(request.dump())).value();
  EXPECT_EQ(info.at("ino"), ino.value());
  EXPECT_EQ(info.at("path"),
            "/gr\ufffd\ufffd"
            "e");
  EXPECT_EQ(error_of({{"command", "info"}, {"path_hex", "6g"}}), Errc::invalid);
  EXPECT_EQ(error_of({{"command", "info"}, {"path_hex", "616"}}), Errc::invalid);
}

TEST_F(ControlTest, InfoOfTheRootTellsOfTheStore) {
  json info = call({{"command", "info"}}).value();
  EXPECT_EQ(info.at("path"), "/");
  EXPECT_EQ(info.at("kind"), "directory");
  EXPECT_EQ(info.at("store"), engine_->store_path());
  EXPECT_GT(info.at("space").at("total"), info.at("space").at("available"));
}

TEST_F(ControlTest, InfoOfAnImageTellsEverything) {
  Ino directory = make_encrypted("tenant-a");
  make_image(directory, "x");
  json info = call({{"command", "info"}, {"path", "x"}}, directory).value();
  EXPECT_EQ(info.at("path"), "/x");
  EXPECT_EQ(info.at("kind"), "image");
  EXPECT_EQ(info.at("size"), kSize);
  EXPECT_EQ(info.at("permissions"), "0600");
  EXPECT_EQ(info.at("attributes").at("user.rekeyfs.encryption"), "kms");
  EXPECT_EQ(info.at("keys_needed"), json::array({{{"key", "tenant-a"}, {"until", "until it is deleted"}}}));
  ASSERT_EQ(info.at("layers").size(), 1U);
  EXPECT_EQ(info.at("layers")[0].at("key"), "tenant-a");
  EXPECT_FALSE(info.contains("store"));
}

TEST_F(ControlTest, AnAttributeOfAnyBytesStaysValidJson) {
  Ino ino = make_image(kRootIno, "x");
  ASSERT_TRUE(engine_->names().setxattr(ino, "user.bin", "\xff\x01", XattrMode::either, kRoot));
  json info = call({{"command", "info"}, {"path", "x"}}).value();
  EXPECT_EQ(info.at("user_attributes").at("user.bin"), "\ufffd\x01");
  EXPECT_NO_THROW(static_cast<void>(info.dump()));
}

TEST_F(ControlTest, AReplicationIsShownWithItsKeysAndNeverAsFinished) {
  Ino source = make_image(make_directory("public"), "x");
  Ino target = make_encrypted("tenant-a");
  ASSERT_TRUE(copy(source, target, "y"));
  const json through_root = call({{"command", "status"}}).value();
  EXPECT_EQ(through_root.at("replications")[0].at("source"), "/public/x");
  EXPECT_EQ(through_root.at("replications")[0].at("path"), "/tenant-a/y");
  for (json status : {through_root, call({{"command", "status"}}, target).value(),
                      call({{"command", "status"}, {"path", "y"}}, target).value()}) {
    ASSERT_EQ(status.at("replications").size(), 1U);
    const json& replication = status.at("replications")[0];
    EXPECT_EQ(replication.at("key_before"), "");
    EXPECT_EQ(replication.at("key_after"), "tenant-a");
    EXPECT_EQ(replication.at("state"), "replicating");
    EXPECT_EQ(replication.at("bytes_total"), kSize);
    EXPECT_LT(replication.at("percent"), 100);
  }
  EXPECT_EQ(call({{"command", "progress"}, {"path", "y"}}, target).value().at("status"), "replicating");
  json elsewhere = call({{"command", "progress"}, {"path", "public"}}).value();
  EXPECT_TRUE(elsewhere.at("replications").empty());
  EXPECT_FALSE(elsewhere.contains("status"));
}

TEST_F(ControlTest, StateIsToldOfWhatLiesBelowTheDirectory) {
  Ino directory = make_directory("a");
  make_image(directory, "x");
  make_directory("ab");
  json state = call({{"command", "state"}, {"path", "/x"}}, directory).value();
  EXPECT_EQ(state.at("status"),
            engine_->names().getxattr(engine_->names().resolve("/a/x").value(), "user.rekeyfs.status").value());
  EXPECT_EQ(error_of({{"command", "state"}, {"path", "/ab"}}, directory), Errc::not_found);
  EXPECT_EQ(error_of({{"command", "state"}, {"path", "/../ab"}}, directory), Errc::invalid);
}

TEST_F(ControlTest, ARefusalIsShownWhereItHappened) {
  Ino full = make_directory("full");
  ASSERT_TRUE(engine_->names().setxattr(full, "user.rekeyfs.type", "full-ecs", XattrMode::either, kRoot));
  Ino source = make_image(full, "x");
  Ino target = make_directory("target");
  ASSERT_FALSE(copy(source, target, "y"));
  json refusals = call({{"command", "status"}, {"path", "target"}}).value().at("refusals");
  ASSERT_EQ(refusals.size(), 1U);
  EXPECT_EQ(call({{"command", "status"}}, target).value().at("refusals")[0].at("path"), "/y");
  EXPECT_EQ(refusals[0].at("path"), "/target/y");
  EXPECT_EQ(refusals[0].at("source"), "/full/x");
  EXPECT_EQ(refusals[0].at("code"), name_of(Errc::wrong_medium));
  EXPECT_TRUE(call({{"command", "status"}}, full).value().at("refusals").empty());
}

TEST_F(ControlTest, WhoCreatesAKeyOwnsIt) {
  json key = call({{"command", "key-create"}, {"alias", "a"}}, kRootIno, kAlice).value();
  EXPECT_EQ(key.at("alias"), "a");
  EXPECT_EQ(key.at("owner"), kAlice.uid);
  EXPECT_EQ(key.at("state"), "enabled");
  EXPECT_EQ(key.at("version"), 1);
  EXPECT_EQ(error_of({{"command", "key-create"}, {"alias", "a"}}), Errc::exists);
  EXPECT_EQ(call({{"command", "key-list"}}).value().at("keys"), json::array({key}));
  EXPECT_EQ(call({{"command", "key-list"}}, kRootIno, kAlice).value().at("keys"), json::array({key}));
  EXPECT_TRUE(call({{"command", "key-list"}}, kRootIno, kBob).value().at("keys").empty());
}

TEST_F(ControlTest, WhoHasAGrantSeesTheKeyButNotWhoElseHasOne) {
  ASSERT_TRUE(call({{"command", "key-create"}, {"alias", "a"}}, kRootIno, kAlice));
  for (const uid_t user : {kBob.uid, kBob.uid + 1})
    ASSERT_TRUE(call({{"command", "key-grant"}, {"alias", "a"}, {"user", user}}, kRootIno, kAlice));
  EXPECT_EQ(call({{"command", "key-show"}, {"alias", "a"}}, kRootIno, kAlice).value().at("grantees").size(), 2U);
  EXPECT_EQ(call({{"command", "key-show"}, {"alias", "a"}}, kRootIno, kBob).value().at("grantees"), json::array({kBob.uid}));
  EXPECT_EQ(call({{"command", "key-list"}}, kRootIno, kBob).value().at("keys").size(), 1U);
  EXPECT_EQ(error_of({{"command", "key-disable"}, {"alias", "a"}}, kRootIno, kBob), Errc::not_permitted);
}

TEST_F(ControlTest, KeysAreNotServedThroughAnotherDirectory) {
  const Ino directory = make_directory("public");
  ASSERT_TRUE(call({{"command", "key-create"}, {"alias", "a"}}, kRootIno, kAlice));
  const char* kCommands[] = {"key-create", "key-list", "key-show", "key-rotate", "key-disable", "key-enable", "key-delete",
                             "key-cancel-deletion", "key-grant", "key-revoke"};
  for (const char* command : kCommands)
    for (const Caller& caller : {kRoot, kAlice})
      EXPECT_EQ(error_of({{"command", command}, {"alias", "a"}, {"user", 1}, {"delay", 0}, {"force", true}}, directory, caller),
                Errc::not_permitted)
          << command;
  EXPECT_EQ(call({{"command", "key-show"}, {"alias", "a"}}).value().at("state"), "enabled");
}

TEST_F(ControlTest, WhatIsBelowAClosedDirectoryIsNotTold) {
  const Ino closed = make_directory("closed");
  make_image(closed, "x");
  AttributeChange change;
  change.permissions = 0700;
  ASSERT_TRUE(engine_->names().setattr(closed, change, kRoot));
  for (const char* command : {"status", "progress", "state", "info", "profile-show", "profile-clear", "rotate"})
    for (const char* path : {"closed/x", "closed/none"})
      EXPECT_EQ(error_of({{"command", command}, {"path", path}, {"alias", "none"}}, kRootIno, kAlice), Errc::access_denied)
          << command << " " << path;
  EXPECT_TRUE(call({{"command", "info"}, {"path", "closed/x"}}));
}

TEST_F(ControlTest, OnlyReadersAreToldOfTheContent) {
  make_image(kRootIno, "x");
  const json info = call({{"command", "info"}, {"path", "x"}}, kRootIno, kAlice).value();
  EXPECT_EQ(info.at("permissions"), "0600");
  for (const char* member : {"attributes", "user_attributes", "lineage", "layers", "keys_needed", "boot"})
    EXPECT_TRUE(info.at(member).is_null()) << member;
  for (const char* command : {"status", "progress", "state", "profile-show"})
    EXPECT_EQ(error_of({{"command", command}, {"path", "x"}}, kRootIno, kAlice), Errc::access_denied) << command;
}

TEST_F(ControlTest, AGroupOpensWhatItsBitsSay) {
  const Ino ino = make_image(kRootIno, "x");
  AttributeChange change;
  change.permissions = 0640;
  change.gid = 64100;
  ASSERT_TRUE(engine_->names().setattr(ino, change, kRoot));
  const json request{{"command", "state"}, {"path", "x"}};
  EXPECT_EQ(error_of(request, kRootIno, kAlice), Errc::access_denied);
  EXPECT_TRUE(read_answer(serve_command(*engine_, Requester{kAlice, {64099, 64100}, kRootIno}, request)));
  EXPECT_TRUE(call(request, kRootIno, Caller{kAlice.uid, 64100}));
}

TEST_F(ControlTest, ReplicationsThatTheSenderCannotListAreNotTold) {
  Ino source = make_image(make_directory("public"), "x");
  Ino target = make_encrypted("tenant-a");
  ASSERT_TRUE(copy(source, target, "y"));
  EXPECT_EQ(call({{"command", "progress"}}).value().at("replications").size(), 1U);
  EXPECT_TRUE(call({{"command", "progress"}}, kRootIno, kBob).value().at("replications").empty()) << "he may not read it";
  AttributeChange his;
  his.uid = kBob.uid;
  ASSERT_TRUE(engine_->names().setattr(engine_->names().lookup(target, "y").value().ino, his, kRoot));
  EXPECT_EQ(call({{"command", "progress"}}, kRootIno, kBob).value().at("replications").size(), 1U);
  AttributeChange closed;
  closed.permissions = 0700;
  ASSERT_TRUE(engine_->names().setattr(target, closed, kRoot));
  EXPECT_TRUE(call({{"command", "progress"}}, kRootIno, kBob).value().at("replications").empty());
}

TEST_F(ControlTest, AKeyIsShownWithItsUsesToThoseWhoMaySeeThem) {
  Ino directory = make_encrypted("tenant-a");
  make_image(directory, "x");
  const json request{{"command", "key-show"}, {"alias", "tenant-a"}};
  for (const Caller& caller : {kRoot, kAlice}) {
    json key = call(request, kRootIno, caller).value();
    ASSERT_EQ(key.at("uses").size(), 1U);
    EXPECT_EQ(key.at("uses")[0].at("path"), "/tenant-a/x");
    EXPECT_EQ(key.at("uses_elsewhere"), 0);
  }
  EXPECT_EQ(error_of(request, kRootIno, kBob), Errc::access_denied) << "it is not his";
  EXPECT_EQ(error_of({{"command", "key-show"}, {"alias", "none"}}, kRootIno, kBob), Errc::access_denied) << "as of one that is not there";
  AttributeChange closed;
  closed.permissions = 0700;
  ASSERT_TRUE(engine_->names().setattr(directory, closed, kRoot));
  json hidden = call(request, kRootIno, kAlice).value();
  EXPECT_TRUE(hidden.at("uses").empty());
  EXPECT_EQ(hidden.at("uses_elsewhere"), 1) << "she has to know it before she disables her key";
  ASSERT_TRUE(call({{"command", "key-grant"}, {"alias", "tenant-a"}, {"user", kBob.uid}}, kRootIno, kAlice));
  hidden = call(request, kRootIno, kBob).value();
  EXPECT_TRUE(hidden.at("uses").empty());
  EXPECT_TRUE(hidden.at("uses_elsewhere").is_null());
  EXPECT_EQ(error_of({{"command", "key-show"}, {"alias", "none"}}), Errc::no_key);
}

TEST_F(ControlTest, TheLogIsShownToOperatorsAndToEachTheirOwn) {
  ASSERT_TRUE(call({{"command", "key-create"}, {"alias", "a"}}, kRootIno, kAlice));
  ASSERT_TRUE(call({{"command", "key-create"}, {"alias", "b"}}, kRootIno, kBob));
  ASSERT_TRUE(call({{"command", "key-create"}, {"alias", "c"}}, kRootIno, kAlice));
  auto keys = [&](json request, const Caller& caller) {
    request["command"] = "log";
    std::string aliases;
    const json answer = call(request, kRootIno, caller).value();
    for (const json& event : answer.at("events")) aliases += event.at("key").get<std::string>();
    return aliases;
  };
  EXPECT_EQ(keys(json::object(), kRoot), "abc");
  EXPECT_EQ(keys(json::object(), Caller{geteuid(), 0, true}), "abc");
  EXPECT_EQ(keys(json::object(), kAlice), "ac");
  EXPECT_EQ(keys(json::object(), kBob), "b");
  EXPECT_EQ(keys({{"most", 1}}, kAlice), "c");
  const json first = call({{"command", "log"}}).value().at("events")[0];
  EXPECT_EQ(first.at("kind"), "key-created");
  EXPECT_EQ(first.at("uid"), kAlice.uid);
  EXPECT_EQ(keys({{"after", first.at("number")}}, kRoot), "bc");
  EXPECT_EQ(error_of({{"command", "log"}, {"most", -1}}), Errc::invalid);
}

class ChooseTest : public ControlTest {
 protected:
  void SetUp() override {
    ControlTest::SetUp();
    tenant_ = make_encrypted("tenant-a");
    plain_ = make_directory("public");
  }
  Files::Created create(Ino directory) { return engine_->files().create(directory, "new", 0664, O_WRONLY, kRoot).value(); }
  Result<json> through(const Files::Created& image, const json& request) {
    Requester requester{kRoot, {}, image.attributes.ino, image.file.get()};
    requester.directory_with = [this](const std::string& token) {
      return token == "tenant" ? std::optional(tenant_) : token == "plain" ? std::optional(plain_) : std::nullopt;
    };
    return read_answer(serve_command(*engine_, requester, request));
  }
  std::string key_of(Ino ino) { return engine_->reports().info(ino).value().layers.at(0).key; }
  mode_t permissions_of(Ino ino) { return engine_->names().getattr(ino).value().permissions; }

  Ino tenant_, plain_;
};

TEST_F(ChooseTest, AKeyInAPlainDirectoryHidesTheImageFromOthers) {
  const Files::Created image = create(plain_);
  ASSERT_TRUE(through(image, {{"command", "choose"}, {"key", "tenant-a"}}));
  EXPECT_EQ(key_of(image.attributes.ino), "tenant-a");
  EXPECT_EQ(permissions_of(image.attributes.ino), 0600U);
}

TEST_F(ChooseTest, PlainInADirectoryWithAKeyIsTakenAtItsWord) {
  const Files::Created image = create(tenant_);
  ASSERT_EQ(key_of(image.attributes.ino), "tenant-a");
  ASSERT_TRUE(through(image, {{"command", "choose"}, {"plain", true}}));
  EXPECT_EQ(key_of(image.attributes.ino), "");
}

TEST_F(ChooseTest, WithoutAChoiceThePolicyStays) {
  const Files::Created image = create(tenant_);
  ASSERT_TRUE(through(image, {{"command", "choose"}}));
  EXPECT_EQ(key_of(image.attributes.ino), "tenant-a");
}

TEST_F(ChooseTest, ItIsTooLateOnceThereIsContent) {
  const Files::Created image = create(tenant_);
  ASSERT_TRUE(engine_->files().write(*image.file, 0, as_bytes("secret")));
  EXPECT_EQ(through(image, {{"command", "choose"}, {"plain", true}}).error().code, Errc::not_permitted);
  EXPECT_EQ(key_of(image.attributes.ino), "tenant-a");
  EXPECT_TRUE(engine_->files().flush(*image.file));
}

TEST_F(ChooseTest, OnlyTheHandleThatCreatedTheImageChooses) {
  const Files::Created image = create(tenant_);
  for (int flags : {O_WRONLY, O_RDONLY, O_WRONLY | O_TRUNC}) {
    const Files::Created other{image.attributes, engine_->files().open(image.attributes.ino, flags, kRoot).value()};
    EXPECT_EQ(through(other, {{"command", "choose"}, {"plain", true}}).error().code, Errc::not_permitted);
  }
  EXPECT_EQ(error_of({{"command", "choose"}, {"plain", true}}), Errc::invalid);
  EXPECT_EQ(key_of(image.attributes.ino), "tenant-a");
}

TEST_F(ChooseTest, AKeyThatIsNotThereIsARefusal) {
  const Files::Created image = create(plain_);
  EXPECT_TRUE(through(image, {{"command", "refusal"}}).value().at("refusal").is_null());
  EXPECT_EQ(through(image, {{"command", "choose"}, {"key", "none"}}).error().code, Errc::no_key);
  const json refusal = through(image, {{"command", "refusal"}}).value().at("refusal");
  EXPECT_EQ(refusal.at("code"), name_of(Errc::no_key));
  EXPECT_THAT(refusal.at("message").get<std::string>(), HasSubstr("none"));
  EXPECT_EQ(engine_->files().write(*image.file, 0, as_bytes("x")).error().code, Errc::no_key);
  EXPECT_TRUE(engine_->files().flush(*image.file));
  EXPECT_EQ(engine_->names().lookup(plain_, "new").error().code, Errc::not_found);
  EXPECT_EQ(engine_->reports().refusals().at(0).path, "/public/new");
}

TEST_F(ChooseTest, APlanTellsAndChangesNothing) {
  const Ino source = make_image(plain_, "x");
  const Files::Created opened{engine_->names().getattr(source).value(), engine_->files().open(source, O_RDONLY, kRoot).value()};
  const json to_tenant{{"command", "plan"}, {"directory", "tenant"}, {"estimate", true}};
  const json plan = through(opened, to_tenant).value();
  EXPECT_EQ(plan.at("transforms"), true);
  EXPECT_EQ(plan.at("key_before"), "");
  EXPECT_EQ(plan.at("key_after"), "tenant-a");
  EXPECT_EQ(plan.at("size"), kSize);
  EXPECT_EQ(plan.at("bytes_to_transform"), kSize);
  EXPECT_EQ(plan.at("space_needed"), kSize);
  EXPECT_GT(plan.at("space_available"), 0);
  EXPECT_TRUE(plan.at("refusals").empty());
  EXPECT_EQ(plan.at("rate_from"), "measured");
  EXPECT_GT(plan.at("bytes_per_second"), 1e6);

  const json clone = through(opened, {{"command", "plan"}, {"directory", "plain"}}).value();
  EXPECT_EQ(clone.at("transforms"), false);
  EXPECT_EQ(clone.at("space_needed"), 0);
  EXPECT_FALSE(clone.contains("rate_from"));
  EXPECT_TRUE(engine_->names().read_directory(tenant_, 0, 10).value().empty());
  EXPECT_EQ(engine_->reports().events({}).value().size(), 2U) << "only the key that was made and set";
  EXPECT_EQ(through(opened, {{"command", "plan"}, {"directory", "2"}}).error().code, Errc::invalid) << "no token";
  EXPECT_EQ(through(opened, {{"command", "plan"}, {"directory", 2}}).error().code, Errc::invalid);
}

TEST_F(ChooseTest, APlanNamesEveryRuleThatForbidsIt) {
  const Files::Created source = create(plain_);
  ASSERT_TRUE(engine_->files().write(*source.file, 0, as_bytes("content")));  // and not flushed: it is being created
  ASSERT_TRUE(engine_->names().setxattr(source.attributes.ino, "user.rekeyfs.type", "full-ecs", XattrMode::either, kRoot));
  const json plan = through(source, {{"command", "plan"}, {"directory", "tenant"}, {"key", "none"}}).value();
  std::vector<std::string> codes;
  for (const json& refusal : plan.at("refusals")) codes.push_back(refusal.at("code"));
  EXPECT_THAT(codes, ::testing::ElementsAre(name_of(Errc::no_key), name_of(Errc::wrong_medium), name_of(Errc::busy)));
  EXPECT_TRUE(engine_->reports().refusals().empty());
  EXPECT_TRUE(engine_->files().flush(*source.file));
}

TEST(ControlAnswerTest, ErrorsKeepTheirReasonOnTheWay) {
  for (Errc code : {Errc::not_found, Errc::corrupt, Errc::io, Errc::locked, Errc::busy, Errc::too_many_files}) {
    Result<json> answer = read_answer({{"error", {{"code", name_of(code)}, {"message", "why"}}}});
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().code, code);
    EXPECT_EQ(answer.error().message, "why");
  }
  EXPECT_EQ(read_answer({{"error", {{"code", "of a later version"}}}}).error().code, Errc::io);
  EXPECT_EQ(read_answer(json(json::value_t::discarded)).error().code, Errc::invalid);
  EXPECT_EQ(read_answer(json::array({1})).error().code, Errc::invalid);
  EXPECT_EQ(read_answer({{"error", "text"}}).error().code, Errc::invalid);
}

}  // namespace
}  // namespace rekeyfs::fs
