// Journal: the append-only log of all changes. A change is appended before its call is acknowledged.
//
// Segments are files journal/<16 hex digits>; a checkpoint starts a new one and removes the superfluous ones. A record
// is encrypted (AES-256-GCM under a key of this mount) and authenticates its position and the tag of the previous
// record, across segments: no record can be removed, moved or replayed. Bytes: rekeyfs-format(5). Thread-safe.
#pragma once

#include <compare>
#include <functional>
#include <memory>
#include <vector>

#include "engine/base/ids.h"
#include "engine/base/mutex.h"
#include "engine/crypto/aead.h"
#include "engine/io/storage.h"

namespace rekeyfs::catalog {

using SegmentNumber = std::uint64_t;

class Journal {
 public:
  // Starts segment `first`, which must not exist. Older segments stay until remove_before(). `storage` must outlive the
  // journal.
  static Result<std::unique_ptr<Journal>> start(io::Storage& storage, const Uuid& store, EpochId epoch,
                                                crypto::Aead aead, SegmentNumber first);

  // Maximum bytes of one record: recovery treats a larger one as damage.
  static constexpr std::size_t kMaxPayload = (16u << 20) - crypto::Aead::kOverhead;
  // Appends a record to the page cache and returns its segment. On failure nothing was appended. Errc::too_large for
  // more than kMaxPayload bytes.
  Result<SegmentNumber> append(std::string_view payload);
  // Makes everything appended before the call durable.
  Status sync();
  // Starts a new segment for further appends and returns its number.
  Result<SegmentNumber> rotate();
  Status remove_before(SegmentNumber first_kept);  // removes superfluous segments
  std::uint64_t segment_bytes() const;  // of the current segment

  struct Position {
    SegmentNumber segment = 0;
    std::uint64_t offset = 0;
    friend auto operator<=>(const Position&, const Position&) = default;
  };
  Position end() const;  // position of the next record; it may still move to a new segment
  struct Record {
    Position at;
    std::string payload;
  };
  struct History {
    std::vector<Record> records;  // in order, up to the first one that is torn or missing
    SegmentNumber next_segment = 0;  // no segment with this or a higher number exists
    bool begins = true;           // false: segment `first` is missing, and nothing was read
    std::string broken;           // where records are missing before existing ones; empty: nowhere
  };
  static Result<std::vector<SegmentNumber>> list(io::Storage& storage);  // existing segments, ascending
  // Reads the records appended since segment `first` was started.
  using AeadOfEpoch = std::function<Result<std::shared_ptr<const crypto::Aead>>(EpochId)>;
  static Result<History> read(io::Storage& storage, const Uuid& store, SegmentNumber first, const AeadOfEpoch& aead_of);

 private:
  struct Segment;
  Journal(io::Storage& storage, const Uuid& store, EpochId epoch, crypto::Aead aead);
  Result<std::shared_ptr<Segment>> make_segment(SegmentNumber number, const crypto::Tag& previous);

  io::Storage& storage_;
  const Uuid store_;
  const EpochId epoch_;
  const crypto::Aead aead_;

  mutable Mutex mutex_;
  std::shared_ptr<Segment> current_ GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<Segment>> unsynced_ GUARDED_BY(mutex_);  // older segments that may not be durable yet
  crypto::Tag last_tag_ GUARDED_BY(mutex_){};
};

}  // namespace rekeyfs::catalog
