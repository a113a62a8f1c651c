// ReplicationRecord: a replication that is not complete (Table::replication, key: ino of the target). Authenticated
// like every record: nobody can make a replica plain, or end its replication early, by changing the disk.
#pragma once

#include "engine/base/bytes.h"
#include "engine/base/ids.h"
#include "engine/base/result.h"

namespace rekeyfs::replication {

struct ReplicationRecord {
  Timestamp started = 0;
  std::string source;  // the source's path at the time of the copy, for display
  std::uint32_t uid = 0;  // user who made the copy

  std::string encode() const { return Writer().put_time(started).put_string(source).put(uid).take(); }
  static Result<ReplicationRecord> decode(std::string_view bytes) {
    Reader in(bytes);
    ReplicationRecord record;
    record.started = in.get_time();
    record.source = in.get_string();
    record.uid = in.get<std::uint32_t>();
    if (!in.finished()) return fail(Errc::corrupt, "a replication's record is malformed");
    return record;
  }
};

}  // namespace rekeyfs::replication
