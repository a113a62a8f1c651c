// Journal: the one append-only log that every change goes through before its call is acknowledged.
//
// Segments are files journal/<16 hex digits>; a checkpoint starts a new one and removes those it made
// superfluous. A record is sealed (AES-256-GCM under a key of this mount) and authenticates its place and the
// tag of the record before it, across segments: nothing can be cut out, moved or replayed. Bytes: rekeyfs-format(5).
// Thread-safe.
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
  // Starts segment `first`, which must not exist; older ones are there until remove_before().
  // `storage` outlives the journal.
  static Result<std::unique_ptr<Journal>> start(io::Storage& storage, const Uuid& store, EpochId epoch,
                                                crypto::Aead aead, SegmentNumber first);

  // Bytes of one record: recovery takes a larger one for damage.
  static constexpr std::size_t kMaxPayload = (16u << 20) - crypto::Aead::kOverhead;
  // In the page cache when it returns, and the segment it went to. On failure nothing was appended. Errc::too_large for
  // more than kMaxPayload bytes.
  Result<SegmentNumber> append(std::string_view payload);
  // Everything appended before the call is durable when it returns.
  Status sync();
  // Appends go to a new segment from now on; its number.
  Result<SegmentNumber> rotate();
  Status remove_before(SegmentNumber first_kept);  // none of them is needed any more
  std::uint64_t segment_bytes() const;  // of the current segment

  struct Position {
    SegmentNumber segment = 0;
    std::uint64_t offset = 0;
    friend auto operator<=>(const Position&, const Position&) = default;
  };
  Position end() const;  // where the next record goes; it may yet go to a new segment
  struct Record {
    Position at;
    std::string payload;
  };
  struct History {
    std::vector<Record> records;  // in order, up to the first that is torn or was never written
    SegmentNumber next_segment = 0;  // no segment of this or a higher number exists, nor will one for long
    bool begins = true;           // false: segment `first` is missing, and nothing was read
    std::string broken;           // where records are missing although later ones are there; empty: nowhere
  };
  static Result<std::vector<SegmentNumber>> list(io::Storage& storage);  // whatever is there, ascending
  // What was appended since segment `first` was started.
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
  std::vector<std::shared_ptr<Segment>> unsynced_ GUARDED_BY(mutex_);  // older, not known to be durable
  crypto::Tag last_tag_ GUARDED_BY(mutex_){};
};

}  // namespace rekeyfs::catalog
