#include "engine/audit/event_record.h"

#include "engine/base/bytes.h"
#include "engine/base/later_fields.h"

namespace rekeyfs::audit {
namespace {

constexpr std::string_view kCut = "...";
constexpr std::uint8_t kRepeatsTag = 1;

// Keeps the beginning of the text, which names the directory concerned.
std::string bounded(std::string_view text) {
  if (text.size() <= kMaxText) return std::string(text);
  return std::string(text.substr(0, kMaxText - kCut.size())) + std::string(kCut);
}

void put_key(Writer& out, const EventKey& key) { out.put_string(bounded(key.id)).put_string(bounded(key.alias)); }

EventKey get_key(Reader& in) {
  EventKey key;
  key.id = in.get_string();
  key.alias = in.get_string();
  return key;
}

Error malformed(std::uint64_t number) {
  return Error{Errc::corrupt, "entry " + std::to_string(number) + " of the audit log is malformed"};
}

}  // namespace

std::string encode(const Event& event) {
  Writer out;
  out.put(static_cast<std::uint8_t>(event.kind)).put_time(event.time).put(static_cast<std::uint32_t>(event.uid));
  out.put_string(bounded(event.path)).put_string(bounded(event.source));
  put_key(out, event.key);
  put_key(out, event.key_before);
  out.put(static_cast<std::uint32_t>(event.code ? errno_of(*event.code) : 0));
  out.put_string(bounded(event.text));
  out.put(event.bytes).put(event.nanoseconds);
  return out.take();
}

Result<Event> decode(std::uint64_t number, std::string_view bytes) {
  Reader in(bytes);
  Event event;
  event.number = number;
  event.kind = static_cast<EventKind>(in.get<std::uint8_t>());
  event.time = in.get_time();
  event.uid = in.get<std::uint32_t>();
  event.path = in.get_string();
  event.source = in.get_string();
  event.key = get_key(in);
  event.key_before = get_key(in);
  if (const auto error_number = in.get<std::uint32_t>(); error_number != 0)
    event.code = code_of_errno(static_cast<int>(error_number));
  event.text = in.get_string();
  event.bytes = in.get<std::uint64_t>();
  event.nanoseconds = in.get<std::uint64_t>();
  if (!in.finished() || name_of(event.kind).empty()) return fail(malformed(number));
  return event;
}

std::string encode_body(const Event& event) {
  Writer out;
  out.put_string(encode(event));
  if (event.count > 1) LaterFields::put_field(out, kRepeatsTag, Writer().put(event.count).put_time(event.since).take());
  return out.take();
}

Result<Event> decode_body(std::uint64_t number, std::string_view body) {
  Reader in(body);
  const std::string entry = in.get_string();
  LaterFields later;
  later.get(in);
  if (!in.finished()) return fail(malformed(number));
  RK_TRY_ASSIGN(Event event, decode(number, entry));
  if (const auto repeats = later.take(kRepeatsTag)) {
    Reader field(*repeats);
    event.count = field.get<std::uint64_t>();
    event.since = field.get_time();
    if (!field.finished()) return fail(malformed(number));
  }
  return event;
}

}  // namespace rekeyfs::audit
