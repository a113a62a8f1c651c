#include "engine/catalog/journal.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <optional>

namespace rekeyfs::catalog {
namespace {

constexpr std::string_view kDirectory = "journal";
constexpr std::string_view kMagic = "rkjrnl1\n";
constexpr std::size_t kHeaderSize = 8 + 16 + 4 + 8 + 16;  // magic, store, epoch, segment, previous tag
constexpr std::size_t kMaxRecord = Journal::kMaxPayload + crypto::Aead::kOverhead;
// No segment can be further ahead of the first one: a file with such a number does not belong to this journal.
constexpr SegmentNumber kFarthest = SegmentNumber{1} << 32;

std::string path_of(SegmentNumber number) {
  char name[32];
  std::snprintf(name, sizeof name, "journal/%016llx", static_cast<unsigned long long>(number));
  return name;
}

std::string encode_header(const Uuid& store, EpochId epoch, SegmentNumber number, const crypto::Tag& previous) {
  Writer out;
  out.put_raw(as_bytes(kMagic)).put_raw(store).put(epoch.value()).put(number).put_raw(previous);
  return out.take();
}

// The authenticated context of a record: its position and its predecessor's tag.
std::string context_of(SegmentNumber segment, std::uint64_t offset, const crypto::Tag& previous) {
  Writer out;
  out.put_raw(as_bytes("rekeyfs journal")).put(segment).put(offset).put_raw(previous);
  return out.take();
}

crypto::Tag tag_of(std::string_view sealed) {
  crypto::Tag tag;
  std::memcpy(tag.data(), sealed.data() + sealed.size() - tag.size(), tag.size());
  return tag;
}

Result<std::string> read_whole(io::File& file) {
  RK_TRY_ASSIGN(const std::uint64_t size, file.size());
  std::string bytes(size, '\0');
  RK_TRY_ASSIGN(const std::size_t got, file.read(0, {reinterpret_cast<std::byte*>(bytes.data()), bytes.size()}));
  bytes.resize(got);
  return bytes;
}

// Whether an authentic record follows somewhere after one that does not decrypt; if so, that one was complete once. A
// record is preceded immediately by the tag that it is chained to.
bool goes_on_after(const std::string& bytes, std::uint64_t broken_at, SegmentNumber number, const crypto::Aead& aead) {
  constexpr std::size_t kHead = sizeof(std::uint32_t), kTag = sizeof(crypto::Tag);
  for (std::size_t at = broken_at + kHead + crypto::Aead::kOverhead; at + kHead + crypto::Aead::kOverhead <= bytes.size(); ++at) {
    const std::uint32_t size = Reader(std::string_view(bytes).substr(at)).get<std::uint32_t>();
    if (size < crypto::Aead::kOverhead || size > kMaxRecord || size > bytes.size() - at - kHead) continue;
    const crypto::Tag before = tag_of(std::string_view(bytes).substr(at - kTag, kTag));
    if (aead.open(as_bytes(context_of(number, at, before)), as_bytes(std::string_view(bytes).substr(at + kHead, size)))) return true;
  }
  return false;
}

// Ignores files whose name is not that of a segment.
std::optional<SegmentNumber> number_of(const std::string& name) {
  SegmentNumber number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number, 16);
  const bool is_name = error == std::errc{} && end == name.data() + name.size() && path_of(number).ends_with("/" + name);
  return is_name ? std::optional(number) : std::nullopt;
}

}  // namespace

struct Journal::Segment {
  SegmentNumber number;
  std::unique_ptr<io::File> file;
  std::uint64_t size = kHeaderSize;  // guarded by the journal's mutex_
};

Journal::Journal(io::Storage& storage, const Uuid& store, EpochId epoch, crypto::Aead aead)
    : storage_(storage), store_(store), epoch_(epoch), aead_(std::move(aead)) {}

Result<std::unique_ptr<Journal>> Journal::start(io::Storage& storage, const Uuid& store, EpochId epoch,
                                                crypto::Aead aead, SegmentNumber first) {
  std::unique_ptr<Journal> journal(new Journal(storage, store, epoch, std::move(aead)));
  RK_TRY_ASSIGN(std::shared_ptr<Segment> segment, journal->make_segment(first, {}));
  Lock lock(journal->mutex_);
  journal->current_ = std::move(segment);
  return journal;
}

Result<std::shared_ptr<Journal::Segment>> Journal::make_segment(SegmentNumber number, const crypto::Tag& previous) {
  auto segment = std::make_shared<Segment>();
  segment->number = number;
  // A failed attempt may have left the file, with nothing but a header.
  RK_TRY_ASSIGN(segment->file, storage_.open(path_of(number), io::OpenMode::create));
  Status made = segment->file->write(0, as_bytes(encode_header(store_, epoch_, number, previous)));
  if (made) made = storage_.sync_directory(kDirectory);
  if (made) return segment;
  static_cast<void>(storage_.remove(path_of(number)));
  return fail(made.error());
}

Result<SegmentNumber> Journal::append(std::string_view payload) {
  if (payload.size() > kMaxPayload)
    return fail(Errc::too_large, "this change needs " + std::to_string(payload.size()) + " bytes in the journal, and one change may have " +
                                     std::to_string(kMaxPayload) + ": make it in several steps");
  Lock lock(mutex_);
  RK_TRY_ASSIGN(const std::string sealed,
                aead_.seal(as_bytes(context_of(current_->number, current_->size, last_tag_)), as_bytes(payload)));
  Writer record;
  record.put_string(sealed);
  RK_TRY(current_->file->write(current_->size, as_bytes(record.text())));
  current_->size += record.text().size();
  last_tag_ = tag_of(sealed);
  return current_->number;
}

Status Journal::sync() {
  std::vector<std::shared_ptr<Segment>> segments;
  {
    Lock lock(mutex_);
    segments = unsynced_;
    segments.push_back(current_);
  }
  for (const auto& segment : segments) RK_TRY(segment->file->sync());
  Lock lock(mutex_);
  std::erase_if(unsynced_, [&](const auto& old) { return std::find(segments.begin(), segments.end(), old) != segments.end(); });
  return {};
}

Result<SegmentNumber> Journal::rotate() {
  Lock lock(mutex_);
  RK_TRY_ASSIGN(std::shared_ptr<Segment> next, make_segment(current_->number + 1, last_tag_));
  unsynced_.push_back(std::move(current_));
  current_ = std::move(next);
  return current_->number;
}

// Removes all older segments found, because a power cut may have restored ones that were removed before.
Status Journal::remove_before(SegmentNumber first_kept) {
  {
    Lock lock(mutex_);
    std::erase_if(unsynced_, [&](const auto& old) { return old->number < first_kept; });
  }
  RK_TRY_ASSIGN(const std::vector<SegmentNumber> numbers, list(storage_));
  for (const SegmentNumber number : numbers)
    if (number < first_kept) RK_TRY(storage_.remove(path_of(number)));
  return {};
}

Journal::Position Journal::end() const {
  Lock lock(mutex_);
  return {current_->number, current_->size};
}

std::uint64_t Journal::segment_bytes() const {
  Lock lock(mutex_);
  return current_->size;
}

Result<std::vector<SegmentNumber>> Journal::list(io::Storage& storage) {
  RK_TRY_ASSIGN(const std::vector<std::string> names, storage.list(kDirectory));
  std::vector<SegmentNumber> numbers;
  for (const std::string& name : names)
    if (const auto number = number_of(name)) numbers.push_back(*number);
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

Result<Journal::History> Journal::read(io::Storage& storage, const Uuid& store, SegmentNumber first,
                                       const AeadOfEpoch& aead_of) {
  RK_TRY_ASSIGN(std::vector<SegmentNumber> numbers, list(storage));
  std::erase_if(numbers, [&](SegmentNumber number) { return number > first && number - first >= kFarthest; });
  History history;
  history.next_segment = numbers.empty() ? first : std::max(numbers.back(), first);
  ++history.next_segment;
  history.begins = std::binary_search(numbers.begin(), numbers.end(), first);
  if (!history.begins) {
    history.broken = "the journal segment " + path_of(first) + " is missing";
    return history;
  }

  crypto::Tag previous{};
  SegmentNumber number = first;
  for (; std::binary_search(numbers.begin(), numbers.end(), number); ++number) {
    RK_TRY_ASSIGN(std::unique_ptr<io::File> file, storage.open(path_of(number), io::OpenMode::read));
    RK_TRY_ASSIGN(const std::string bytes, read_whole(*file));
    Reader in(bytes);
    const std::string_view magic = as_text(in.get_raw(kMagic.size()));
    Uuid owner{};
    in.get_into(owner);
    const EpochId epoch{in.get<std::uint32_t>()};
    const SegmentNumber self = in.get<std::uint64_t>();
    crypto::Tag before{};
    in.get_into(before);
    // The tag before the first segment is unknown and not needed; the first record authenticates its header.
    if (number == first) previous = before;
    // The header was never written, or the previous segment lost its end in a power cut.
    if (!in.ok() || magic != kMagic || owner != store || self != number || before != previous) {
      if (bytes.size() > kHeaderSize) history.broken = path_of(number) + " does not continue the segment before it";
      break;
    }

    // A mount without a record never acknowledged anything.
    const Result<std::shared_ptr<const crypto::Aead>> key = aead_of(epoch);
    if (!key) {
      if (key.error().code != Errc::corrupt) return fail(key.error());
      if (bytes.size() > kHeaderSize) history.broken = path_of(number) + " belongs to a mount that the catalog does not know";
      break;
    }
    const std::shared_ptr<const crypto::Aead>& aead = *key;
    std::uint64_t ends = kHeaderSize;
    while (in.left() > sizeof(std::uint32_t)) {
      const std::uint64_t offset = bytes.size() - in.left();
      const std::uint32_t size = in.get<std::uint32_t>();
      if (size < crypto::Aead::kOverhead || size > kMaxRecord || size > in.left()) break;
      const std::string_view sealed = as_text(in.get_raw(size));
      auto payload = aead->open(as_bytes(context_of(number, offset, previous)), as_bytes(sealed));
      if (!payload) break;
      previous = tag_of(sealed);
      history.records.push_back({{number, offset}, std::move(*payload)});
      ends = bytes.size() - in.left();
    }
    if (goes_on_after(bytes, ends, number, *aead)) history.broken = path_of(number) + " is damaged at byte " + std::to_string(ends);
    if (!history.broken.empty()) break;
  }
  if (history.broken.empty() && number <= numbers.back() && !std::binary_search(numbers.begin(), numbers.end(), number))
    history.broken = path_of(number) + " is missing";
  return history;
}

}  // namespace rekeyfs::catalog
