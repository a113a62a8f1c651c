// Control messages in both directions: requests that any user may send to a mount's daemon, and answers parsed by a
// command.
#include "fs/control.h"

#include "tests/fuzz/small_store.h"

namespace rekeyfs {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxKeys = 64;  // requests make them; then it is time for a new store

SmallStore& store() {
  static std::optional<SmallStore> small;
  if (small && must(small->engine().keys().list()).size() > kMaxKeys) small.reset();
  if (!small) small.emplace();
  return *small;
}

void try_request(Reader& in) {
  const auto from = in.get<std::uint8_t>();
  const json request = json::parse(as_text(in.get_raw(in.left())), nullptr, false);
  if (request.is_discarded()) return;
  SmallStore& small = store();
  const uid_t uid = from & 1 ? 0 : 64001;
  const bool through_image = from & 2;
  const Ino node = through_image ? small.image() : from & 4 ? small.folder() : kRootIno;
  fs::Requester requester{Caller{uid, uid, uid == 0 && node == kRootIno}, {}, node};
  if (through_image) requester.file = &small.file();
  requester.directory_with = [&](const std::string&) { return std::optional(small.folder()); };
  const json answer = fs::serve_command(small.engine(), requester, request);
  // As the daemon sends it.
  const std::string text = answer.dump(-1, ' ', false, json::error_handler_t::replace);
  const auto read = fs::read_answer(json::parse(text, nullptr, false));
  require(read.has_value() == answer.contains("ok"), "an answer says whether the request was served");
  if (!read) require(!describe(read.error()).empty(), "a refusal is told in words");
}

void try_answer(Reader& in) {
  const auto read = fs::read_answer(json::parse(as_text(in.get_raw(in.left())), nullptr, false));
  if (read) static_cast<void>(read->dump(-1, ' ', false, json::error_handler_t::replace));
}

// First byte: 'a' for an answer, anything else for a request. Of a request the next one: who sends it, through what.
void try_input(ByteView input) {
  Reader in(input);
  if (in.get<std::uint8_t>() == 'a')
    try_answer(in);
  else
    try_request(in);
}

}  // namespace
}  // namespace rekeyfs

RK_FUZZ_TARGET(rekeyfs::try_input)
