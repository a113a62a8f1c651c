// Mount options, the command line of the mount helper, and the table of exit codes.
#include <map>
#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tools/exit_code.h"
#include "tools/mount_helper.h"
#include "tools/mount_options.h"

namespace rekeyfs::tools {
namespace {

using ::testing::HasSubstr;

TEST(MountOptionsTest, NothingGivenIsTheDefault) {
  MountOptionList list = parse_mount_options("").value();
  EXPECT_FALSE(list.read_only);
  EXPECT_FALSE(list.allow_other);
  EXPECT_FALSE(list.writeback_cache);
  EXPECT_FALSE(list.key_file || list.passphrase_file || list.log);
}

TEST(MountOptionsTest, EveryOptionOfOursIsTaken) {
  MountOptionList list = parse_mount_options("ro,allow_other,writeback_cache,key_file=/a/b,log=/var/log/x").value();
  EXPECT_TRUE(list.read_only);
  EXPECT_TRUE(list.allow_other);
  EXPECT_TRUE(list.writeback_cache);
  EXPECT_EQ(list.key_file, "/a/b");
  EXPECT_EQ(list.log, "/var/log/x");
  EXPECT_EQ(parse_mount_options("passphrase_file=/p").value().passphrase_file, "/p");
}

TEST(MountOptionsTest, TheLastOfRoAndRwCounts) {
  EXPECT_FALSE(parse_mount_options("ro,rw").value().read_only);
  EXPECT_TRUE(parse_mount_options("rw,ro").value().read_only);
  EXPECT_TRUE(parse_mount_options("exec,noexec").value().no_exec);
  EXPECT_FALSE(parse_mount_options("noexec,user=alice,exec").value().no_exec);
}

TEST(MountOptionsTest, WhatMountAndFstabAddIsIgnored) {
  EXPECT_TRUE(parse_mount_options("defaults,noauto,user,nofail,_netdev,noatime,nodev,x-systemd.automount,comment=a"));
}

TEST(MountOptionsTest, AnEscapedCommaIsPartOfTheValue) {
  EXPECT_EQ(parse_mount_options("key_file=/a\\,b,ro").value().key_file, "/a,b");
  EXPECT_EQ(parse_mount_options("key_file=/a\\\\,ro").value().key_file, "/a\\");
  EXPECT_EQ(parse_mount_options("key_file=/a=b").value().key_file, "/a=b");
}

TEST(MountOptionsTest, AnUnknownOptionIsAnErrorThatListsTheKnownOnes) {
  Outcome<MountOptionList> list = parse_mount_options("ro,key-file=/a");
  ASSERT_FALSE(list);
  EXPECT_EQ(list.error().code, ExitCode::usage);
  EXPECT_THAT(list.error().message, HasSubstr("key-file=/a"));
  for (const char* known : {"ro", "rw", "allow_other", "key_file=", "passphrase_file=", "writeback_cache", "log="})
    EXPECT_THAT(list.error().message, HasSubstr(known));
  EXPECT_TRUE(parse_mount_options("zzz", UnknownOption::ignore));
}

TEST(MountOptionsTest, AValueMustBeThere) {
  for (const char* text : {"key_file", "key_file=", "log=", "passphrase_file"}) {
    Outcome<MountOptionList> list = parse_mount_options(text);
    ASSERT_FALSE(list) << text;
    EXPECT_EQ(list.error().code, ExitCode::usage) << text;
  }
}

TEST(MountOptionsTest, HotImagesTakeASizeAndASpan) {
  EXPECT_EQ(parse_mount_options("").value().hot_memory, 0U);
  EXPECT_EQ(parse_mount_options("hot=4096").value().hot_memory, 4096U);
  EXPECT_EQ(parse_mount_options("hot=3M").value().hot_memory, 3U << 20);
  EXPECT_EQ(parse_mount_options("hot=2T,hot_idle=5").value().hot_memory, std::uint64_t{2} << 40);
  EXPECT_EQ(parse_mount_options("hot=2G,hot_idle=5").value().hot_idle, std::chrono::seconds(5));
  EXPECT_EQ(parse_mount_options("").value().user_keys, 0u);
  EXPECT_EQ(parse_mount_options("user_keys=0").value().user_keys, 0u);
  EXPECT_EQ(parse_mount_options("user_keys=1000").value().user_keys, 1000u);
  for (const char* text : {"hot", "hot=", "hot=0", "hot=G", "hot=2X", "hot=2GB", "hot=-1", "hot=9999999999T",
                           "hot_idle", "hot_idle=1m", "hot_idle=86401", "hot=1G,writeback_cache", "user_keys", "user_keys=",
                           "user_keys=-1", "user_keys=1001", "user_keys=1K"})
    EXPECT_FALSE(parse_mount_options(text)) << text;
}

TEST(MountOptionsTest, TwoSecretsExcludeEachOther) {
  EXPECT_FALSE(parse_mount_options("key_file=/a,passphrase_file=/b"));
}

Outcome<MountRequest> helper(std::vector<std::string> words) {
  words.insert(words.begin(), "/sbin/mount.rekeyfs");
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  return parse_mount_helper(static_cast<int>(words.size()), arguments.data());
}

TEST(MountHelperTest, KnowsItsName) {
  EXPECT_TRUE(is_mount_helper("/sbin/mount.rekeyfs"));
  EXPECT_TRUE(is_mount_helper("mount.rekeyfs"));
  EXPECT_FALSE(is_mount_helper("/usr/bin/rekeyfs"));
}

TEST(MountHelperTest, TakesWhatMountGivesIt) {
  MountRequest request = helper({"/srv/store", "/mnt", "-n", "-v", "-o", "rw,key_file=/k", "-t", "rekeyfs"}).value();
  EXPECT_EQ(request.store, "/srv/store");
  EXPECT_EQ(request.mountpoint, "/mnt");
  EXPECT_EQ(request.options.key_file, "/k");
  EXPECT_FALSE(request.only_check);
  EXPECT_FALSE(request.foreground);
}

TEST(MountHelperTest, EntersANamespaceAndKnowsNoKinds) {
  EXPECT_EQ(helper({"/s", "/m", "-N", "/proc/1/ns/mnt"}).value().mount_namespace, "/proc/1/ns/mnt");
  EXPECT_EQ(helper({"/s", "/m", "-t", "rekeyfs.kind"}).error().code, ExitCode::usage);
}

TEST(MountHelperTest, FakeChecksOnlyAndSloppyIgnores) {
  EXPECT_TRUE(helper({"-f", "/s", "/m"}).value().only_check);
  EXPECT_FALSE(helper({"/s", "/m", "-o", "zzz"}));
  EXPECT_TRUE(helper({"/s", "/m", "-s", "-o", "zzz"}));
}

TEST(MountHelperTest, RefusesAnythingElse) {
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"/s"}, {"/s", "/m", "/x"}, {"/s", "/m", "-q"}, {"/s", "/m", "-o"}}) {
    Outcome<MountRequest> request = helper(words);
    ASSERT_FALSE(request);
    EXPECT_EQ(request.error().code, ExitCode::usage);
  }
}

// Every reason there is: the names end where the reasons do.
std::vector<Errc> all_reasons() {
  std::vector<Errc> reasons;
  for (int number = 0; number < 256; ++number)
    if (name_of(static_cast<Errc>(number)) != name_of(static_cast<Errc>(255)))
      reasons.push_back(static_cast<Errc>(number));
  return reasons;
}

TEST(ExitCodeTest, EveryReasonHasADocumentedCodeThatIsNoSuccess) {
  std::set<ExitCode> documented;
  for (const ExitCodeRow& row : exit_codes()) documented.insert(row.code);
  ASSERT_GT(all_reasons().size(), 30U);
  for (Errc reason : all_reasons()) {
    EXPECT_TRUE(documented.contains(exit_code_of(reason))) << name_of(reason);
    EXPECT_NE(exit_code_of(reason), ExitCode::ok) << name_of(reason);
  }
}

TEST(ExitCodeTest, TheNumbersThatScriptsRelyOnStay) {
  const std::map<Errc, int> expected{{Errc::wrong_secret, 3}, {Errc::locked, 4},        {Errc::wrong_version, 6},
                                     {Errc::corrupt, 7},      {Errc::busy, 8},          {Errc::no_key, 10},
                                     {Errc::key_revoked, 11}, {Errc::not_found, 14},    {Errc::exists, 15},
                                     {Errc::no_space, 17},    {Errc::wrong_medium, 18}, {Errc::not_permitted, 16}};
  for (const auto& [reason, code] : expected)
    EXPECT_EQ(static_cast<int>(exit_code_of(reason)), code) << name_of(reason);
}

TEST(ExitCodeTest, TheTableCountsUpWithoutGapsAndSaysSomething) {
  int next = 0;
  for (const ExitCodeRow& row : exit_codes()) {
    EXPECT_EQ(static_cast<int>(row.code), next++);
    EXPECT_FALSE(row.meaning.empty());
  }
}

}  // namespace
}  // namespace rekeyfs::tools
