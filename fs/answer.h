// Answer: the guard around every operation: it catches exceptions, logs, maps errors and replies exactly once.
//
// An operation returns a Result of one of the types below; send() sends the protocol's reply for each type.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <type_traits>
#include <variant>

#include "engine/base/exceptions.h"
#include "fs/authority.h"
#include "fs/byte_range.h"
#include "fs/context.h"
#include "fs/fuse_api.h"
#include "fs/translate.h"

namespace rekeyfs::fs {

struct LinkTarget {
  std::string text;
};
struct Bytes {
  ByteView bytes;  // valid until the answer is sent
};
struct Text {
  std::string text;
};
struct NeededSize {
  std::size_t size;
};
struct Written {
  std::size_t size;
};
struct Position {
  std::uint64_t offset;
};
// `then` computes the answer after the kernel has written back and dropped these pages. Only for requests during which
// the kernel locks no page of the image.
struct AfterDropping {
  Ino ino;
  ByteRange pages;
  std::function<void()> then;
};
struct OpenedFile {
  fuse_file_info info;
  std::optional<std::int32_t> backing;  // the kernel reads this backing file instead of asking the daemon
};
struct OpenedDirectory {
  fuse_file_info info;
};
struct CreatedFile {
  fuse_entry_param entry;
  fuse_file_info info;
};
struct IoctlAnswer {
  std::string out;
};

inline Context& context_of(fuse_req_t req) {
  return *static_cast<Context*>(fuse_req_userdata(req));
}

void send(fuse_req_t req, const fuse_entry_param& entry);
void send(fuse_req_t req, const Stat& attributes);
void send(fuse_req_t req, const struct statvfs& space);
void send(fuse_req_t req, const LinkTarget& target);
void send(fuse_req_t req, const Bytes& bytes);
void send(fuse_req_t req, const Text& text);
void send(fuse_req_t req, const NeededSize& needed);
void send(fuse_req_t req, const Written& written);
void send(fuse_req_t req, const Position& position);
void send(fuse_req_t req, const AfterDropping& order);
void send(fuse_req_t req, const OpenedFile& opened);
void send(fuse_req_t req, const OpenedDirectory& opened);
void send(fuse_req_t req, const CreatedFile& created);
void send(fuse_req_t req, const IoctlAnswer& answer);
void send_error(fuse_req_t req, const char* operation, fuse_ino_t ino, const Error& error);

template <typename... Answer>
void send(fuse_req_t req, const std::variant<Answer...>& answer) {
  std::visit([req](const auto& one) { send(req, one); }, answer);
}

// `ino` is used in the log only.
template <typename Compute>
void answer(fuse_req_t req, const char* operation, fuse_ino_t ino, Compute compute) {
  auto result = caught([&] { return compute(context_of(req)); });
  if (!result) {
    send_error(req, operation, ino, result.error());
  } else if constexpr (std::is_void_v<typename decltype(result)::value_type>) {
    fuse_reply_err(req, 0);
  } else {
    send(req, *result);
  }
}

}  // namespace rekeyfs::fs
