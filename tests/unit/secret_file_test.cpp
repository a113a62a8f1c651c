// Key files and passphrase files.
#include <fstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/temp_directory.h"
#include "tools/secret_file.h"

namespace rekeyfs::tools {
namespace {

using ::testing::HasSubstr;

class SecretFileTest : public test::TempDirectory {
 protected:
  std::string file(const std::string& content) const {
    std::ofstream(path("secret")) << content;
    chmod(path("secret").c_str(), 0600);
    return path("secret");
  }
};

TEST_F(SecretFileTest, AKeyIsTheWholeFileAndAPassphraseItsFirstLine) {
  const std::string secret = file("one\ntwo\n");
  EXPECT_EQ(read_secret_file(secret, SecretPart::whole_file).value().expose(), "one\ntwo\n");
  EXPECT_EQ(read_secret_file(secret, SecretPart::first_line).value().expose(), "one");
  EXPECT_EQ(read_secret_file(file("no line feed"), SecretPart::first_line).value().expose(), "no line feed");
}

TEST_F(SecretFileTest, WhatCannotBeASecretIsRefusedByName) {
  for (const std::string& bad : {path("missing"), directory()}) {
    Outcome<SecretBytes> secret = read_secret_file(bad, SecretPart::whole_file);
    ASSERT_FALSE(secret);
    EXPECT_EQ(secret.error().code, ExitCode::wrong_secret);
    EXPECT_THAT(secret.error().message, HasSubstr(bad));
  }
  EXPECT_FALSE(read_secret_file(file(""), SecretPart::whole_file));
  EXPECT_FALSE(read_secret_file(file("\nsecond"), SecretPart::first_line));
  EXPECT_TRUE(read_secret_file(file(std::string(65536, 'x')), SecretPart::whole_file));
  EXPECT_FALSE(read_secret_file(file(std::string(65537, 'x')), SecretPart::whole_file));
}

TEST_F(SecretFileTest, AFileThatOthersCanReadIsUsedWithAWarning) {
  const std::string secret = file("secret");
  chmod(secret.c_str(), 0644);
  ::testing::internal::CaptureStderr();
  EXPECT_TRUE(read_secret_file(secret, SecretPart::whole_file));
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("chmod 600 " + secret));
}

TEST_F(SecretFileTest, ANewKeyFileIsRandomAndItsOwnersAlone) {
  for (const char* name : {"a", "b"}) {
    NewKeyFile made = NewKeyFile::make_if_missing(path(name)).value();
    EXPECT_TRUE(made.made());
    made.keep();
  }
  struct stat facts {};
  ASSERT_EQ(stat(path("a").c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 07777, 0600U);
  EXPECT_EQ(facts.st_size, 32);
  EXPECT_NE(read_secret_file(path("a"), SecretPart::whole_file).value().expose(),
            read_secret_file(path("b"), SecretPart::whole_file).value().expose());
}

TEST_F(SecretFileTest, ANewKeyFileIsRemovedUnlessKeptAndAnOldOneStays) {
  { NewKeyFile made = NewKeyFile::make_if_missing(path("a")).value(); }
  EXPECT_NE(access(path("a").c_str(), F_OK), 0);
  const std::string old = file("an old secret");
  {
    NewKeyFile found = NewKeyFile::make_if_missing(old).value();
    EXPECT_FALSE(found.made());
  }
  EXPECT_EQ(read_secret_file(old, SecretPart::whole_file).value().expose(), "an old secret");
}

TEST_F(SecretFileTest, TheDirectoriesThatLeadToItAreItsOwnersAlone) {
  ASSERT_TRUE(NewKeyFile::make_if_missing(path("config/rekeyfs/store.key")));
  for (const char* name : {"config", "config/rekeyfs"}) {
    struct stat facts {};
    ASSERT_EQ(stat(path(name).c_str(), &facts), 0);
    EXPECT_EQ(facts.st_mode & 07777, 0700U);
  }
}

TEST_F(SecretFileTest, AKeyFileThatCannotBeMadeIsAnError) {
  EXPECT_FALSE(NewKeyFile::make_if_missing(file("no directory") + "/a"));
}

}  // namespace
}  // namespace rekeyfs::tools
