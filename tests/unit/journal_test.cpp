// The journal: what is recovered after its end was torn, or after its files were manipulated.
#include "engine/catalog/journal.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "engine/io/local_storage.h"
#include "tests/support/store_copies.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs::catalog {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr std::size_t kHeader = 52;

class JournalTest : public test::TempDirectory {
 protected:
  void SetUp() override {
    storage_ = std::move(*io::LocalStorage::open(directory()));
    ASSERT_TRUE(storage_->make_directory("journal"));
  }

  std::unique_ptr<Journal> start(SegmentNumber first = 1) {
    auto aead = crypto::Aead::create(key_, crypto::NonceSource::counting);
    auto journal = Journal::start(*storage_, store_, EpochId{1}, std::move(*aead), first);
    EXPECT_TRUE(journal) << test::error_text(journal);
    return std::move(*journal);
  }
  // Three records in segment 1, two in segment 2, one in segment 3.
  void write_three_segments() {
    const auto journal = start();
    for (const char* payload : {"one", "two", "three", "", "four", "five", "", "six"}) {
      if (*payload == '\0') ASSERT_TRUE(journal->rotate());
      else ASSERT_TRUE(journal->append(payload));
    }
  }
  Result<Journal::History> read(const Uuid& store, SegmentNumber first = 1) {
    return Journal::read(*storage_, store, first, [this](EpochId epoch) -> Result<std::shared_ptr<const crypto::Aead>> {
      if (epoch != EpochId{1}) return fail(Errc::corrupt);
      return std::make_shared<const crypto::Aead>(std::move(*crypto::Aead::create(key_, crypto::NonceSource::counting)));
    });
  }
  std::vector<std::string> payloads(SegmentNumber first = 1) {
    const auto history = read(store_, first);
    EXPECT_TRUE(history) << test::error_text(history);
    std::vector<std::string> found;
    if (history)
      for (const auto& record : history->records) found.push_back(record.payload);
    return found;
  }

  std::string segment(int number) const { return path("journal/000000000000000" + std::to_string(number)); }
  static std::string content(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  static void put(const std::string& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
  }
  // Where the records of a segment begin, and where the last one ends.
  static std::vector<std::size_t> borders(const std::string& bytes) {
    std::vector<std::size_t> found{kHeader};
    while (found.back() < bytes.size()) {
      std::uint32_t size = 0;
      std::memcpy(&size, &bytes[found.back()], sizeof size);
      found.push_back(found.back() + sizeof size + size);
    }
    return found;
  }

  const crypto::Key key_ = std::move(*crypto::Key::random());
  const Uuid store_{std::byte{7}};
  std::unique_ptr<io::LocalStorage> storage_;
};

TEST_F(JournalTest, ARecordThatRecoveryWouldRefuseIsNotWritten) {
  const std::string most(Journal::kMaxPayload, 'm');
  {
    const auto journal = start();
    ASSERT_TRUE(journal->append("first"));
    const Journal::Position end = journal->end();
    const auto refused = journal->append(most + "m");
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::too_large);
    EXPECT_EQ(journal->end(), end);
    ASSERT_TRUE(journal->append(most));
    ASSERT_TRUE(journal->append("last"));
  }
  EXPECT_THAT(payloads(), ElementsAre("first", most, "last"));
}

TEST_F(JournalTest, RecordsComeBackInOrderAcrossSegments) {
  write_three_segments();
  EXPECT_THAT(payloads(), ElementsAre("one", "two", "three", "four", "five", "six"));
  EXPECT_THAT(payloads(2), ElementsAre("four", "five", "six"));
  EXPECT_EQ(read(store_)->next_segment, 4u);
}

TEST_F(JournalTest, ATornEndIsWhereHistoryEnds) {
  write_three_segments();
  const std::string whole = content(segment(1));
  const std::vector<std::size_t> at = borders(whole);
  ASSERT_EQ(at.size(), 4u);
  const std::vector<std::string> all{"one", "two", "three"};
  for (std::size_t size = 0; size < whole.size(); ++size) {
    put(segment(1), whole.substr(0, size));
    std::size_t complete = 0;
    while (complete < 3 && at[complete + 1] <= size) ++complete;
    // What follows in later segments was made after what is missing.
    ASSERT_EQ(payloads(), std::vector<std::string>(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(complete))) << size;
  }
}

TEST_F(JournalTest, AFlippedBitEndsHistoryBeforeItsRecord) {
  write_three_segments();
  const std::string whole = content(segment(1));
  const std::vector<std::size_t> at = borders(whole);
  for (std::size_t byte = 0; byte < whole.size(); ++byte) {
    std::string changed = whole;
    changed[byte] = static_cast<char>(changed[byte] ^ (1 << byte % 8));
    put(segment(1), changed);
    const std::size_t record = byte < kHeader ? 0 : static_cast<std::size_t>(std::upper_bound(at.begin(), at.end(), byte) - at.begin()) - 1;
    ASSERT_EQ(payloads().size(), record) << "byte " << byte;
  }
  put(segment(1), whole);
  std::string header = content(segment(2));
  for (std::size_t byte = 0; byte < kHeader; ++byte) {
    std::string changed = header;
    changed[byte] = static_cast<char>(changed[byte] ^ 1);
    put(segment(2), changed);
    ASSERT_THAT(payloads(), ElementsAre("one", "two", "three")) << "byte " << byte << " of the second header";
  }
}

TEST_F(JournalTest, NoRecordCanBeCutOutRepeatedOrSwapped) {
  write_three_segments();
  const std::string whole = content(segment(1));
  const std::vector<std::size_t> at = borders(whole);
  auto record = [&](std::size_t n) { return whole.substr(at[n], at[n + 1] - at[n]); };
  const std::string header = whole.substr(0, kHeader);
  put(segment(1), header + record(0) + record(2));
  EXPECT_THAT(payloads(), ElementsAre("one"));
  put(segment(1), header + record(0) + record(0) + record(1) + record(2));
  EXPECT_THAT(payloads(), ElementsAre("one"));
  put(segment(1), header + record(1) + record(0) + record(2));
  EXPECT_THAT(payloads(), IsEmpty());
}

TEST_F(JournalTest, SegmentsMissingSwappedOrOfAnotherStore) {
  write_three_segments();
  namespace stdfs = std::filesystem;
  const std::string second = content(segment(2));
  const std::string third = content(segment(3));

  stdfs::remove(segment(2));
  EXPECT_THAT(payloads(), ElementsAre("one", "two", "three"));
  EXPECT_EQ(read(store_)->next_segment, 4u) << "the number of a segment that is there would be used again";

  put(segment(2), third);
  put(segment(3), second);
  EXPECT_THAT(payloads(), ElementsAre("one", "two", "three"));

  put(segment(2), second);
  put(segment(3), third);
  EXPECT_THAT(read(Uuid{std::byte{8}})->records, IsEmpty());

  stdfs::remove(segment(1));
  const auto history = read(store_);
  ASSERT_TRUE(history);
  EXPECT_FALSE(history->begins);
  EXPECT_THAT(history->records, IsEmpty());
}

// A copy of an older segment under the number of a newer one: the same mount, another place in the chain.
TEST_F(JournalTest, AnOlderSegmentIsNotTakenForANewerOne) {
  write_three_segments();
  std::string forged = content(segment(2));
  forged[28] = 3;  // the number in the header
  put(segment(3), forged);
  EXPECT_THAT(payloads(), ElementsAre("one", "two", "three", "four", "five"));
}

TEST_F(JournalTest, SegmentsAreRemovedFromTheOldestOn) {
  const auto journal = start();
  for (const char* payload : {"one", "two", "three"}) {
    ASSERT_TRUE(journal->append(payload));
    ASSERT_TRUE(journal->rotate());
  }
  ASSERT_TRUE(journal->remove_before(3));
  EXPECT_FALSE(std::filesystem::exists(segment(2)));
  EXPECT_THAT(payloads(3), ElementsAre("three"));
}

TEST_F(JournalTest, WhatAPowerCutBroughtBackIsRemovedAgain) {
  const auto journal = start(7);
  put(segment(2), "a segment that was removed");
  put(segment(5), "another one");
  put(path("journal/5"), "no segment's name");
  ASSERT_TRUE(journal->rotate());
  ASSERT_TRUE(journal->remove_before(8));
  EXPECT_THAT(Journal::list(*storage_).value(), ElementsAre(8u));
  EXPECT_TRUE(std::filesystem::exists(path("journal/5")));
}

TEST_F(JournalTest, NumbersThatNoSegmentCanHaveDoNotMatter) {
  write_three_segments();
  for (const char* name : {"ffffffffffffffff", "7fffffffffffffff", "0000000F00000000", "junk"}) put(path("journal/") + name, "forged");
  EXPECT_EQ(read(store_)->next_segment, 4u);
  EXPECT_EQ(read(store_)->broken, "");
  EXPECT_EQ(payloads().size(), 6u);
}

}  // namespace
}  // namespace rekeyfs::catalog
