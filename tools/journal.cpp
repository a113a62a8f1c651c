#include "tools/journal.h"

#include <cerrno>
#include <string_view>

#include <nlohmann/json.hpp>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#include "engine/base/bytes.h"
#include "engine/base/log.h"
#include "fs/control.h"
#include "tools/event_text.h"
#include "tools/human.h"

namespace rekeyfs::tools {
namespace {

using nlohmann::json;

constexpr std::string_view kSocket = "/run/systemd/journal/socket";
constexpr Background::Duration kPause = std::chrono::milliseconds(500);
constexpr std::uint64_t kAtATime = 256;  // events per query

struct Field {
  const char* name;    // in the journal
  const char* member;  // of the event, see fs/control.h
};
constexpr Field kFields[] = {{"REKEYFS_EVENT", "kind"},         {"REKEYFS_NUMBER", "number"},
                             {"REKEYFS_TIME", "time"},          {"REKEYFS_UID", "uid"},
                             {"REKEYFS_PATH", "path"},          {"REKEYFS_SOURCE", "source"},
                             {"REKEYFS_KEY", "key"},            {"REKEYFS_KEY_ID", "key_id"},
                             {"REKEYFS_KEY_BEFORE", "key_before"}, {"REKEYFS_KEY_BEFORE_ID", "key_before_id"},
                             {"REKEYFS_CODE", "code"},          {"REKEYFS_TEXT", "text"},
                             {"REKEYFS_COUNT", "count"}};

// In the form that allows any value: the name, the length and the bytes. https://systemd.io/JOURNAL_NATIVE_PROTOCOL
void put_field(Writer& out, std::string_view name, std::string_view value) {
  out.put_raw(as_bytes(name)).put_raw(as_bytes("\n"));
  out.put(static_cast<std::uint64_t>(value.size())).put_raw(as_bytes(value)).put_raw(as_bytes("\n"));
}

std::string datagram_of(const json& event, const std::string& store, std::uint64_t not_sent) {
  Writer out;
  const bool is_refusal = event.value("kind", "") == "refused";
  const std::string missed = not_sent > 0 ? " (" + std::to_string(not_sent) + " earlier events could not be sent)" : "";
  put_field(out, "MESSAGE", printable(who_text(event) + ": " + what_text(event) + missed));
  put_field(out, "PRIORITY", std::to_string(is_refusal ? LOG_WARNING : LOG_NOTICE));
  put_field(out, "SYSLOG_IDENTIFIER", "rekeyfs");
  put_field(out, "REKEYFS_STORE", store);
  for (const Field& field : kFields) {
    const json& value = event.at(field.member);
    if (value.is_string() && !value.get_ref<const std::string&>().empty()) put_field(out, field.name, value.get_ref<const std::string&>());
    if (value.is_number()) put_field(out, field.name, value.dump());
  }
  return out.take();
}

sockaddr_un address_of_journal() {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  kSocket.copy(address.sun_path, sizeof address.sun_path - 1);
  return address;
}

bool is_there() {
  struct stat facts {};
  return stat(std::string(kSocket).c_str(), &facts) == 0 && S_ISSOCK(facts.st_mode);
}

}  // namespace

void Journal::start() {
  if (!is_there()) return;
  socket_ = Descriptor(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  last_ = engine_.reports().newest_event_at_open();
  const Status started = socket_ ? background_.start([this] { return step(); }) : fail(error_from_errno(errno, "make a socket"));
  if (!started) log::warn("events do not go to the system's journal: {}", describe(started.error()));
}

void Journal::stop() {
  if (!background_.is_running()) return;
  background_.stop();
  while (send_some()) {
  }
}

Background::Duration Journal::step() {
  return send_some() ? Background::Duration::zero() : kPause;
}

bool Journal::send_some() {
  const json request{{"command", "log"}, {"most", kAtATime}, {"after", last_}, {"oldest", true}};
  const auto answer = fs::read_answer(fs::serve_command(engine_, fs::Requester{kOperator, {}}, request));
  if (!answer) {
    log::warn("events cannot be read for the system's journal: {}", describe(answer.error()));
    return false;
  }
  const json& events = answer->at("events");
  for (const json& event : events) {
    send(datagram_of(event, engine_.store_path(), not_sent_));
    last_ = event.at("number").get<std::uint64_t>();
  }
  return !events.empty();
}

void Journal::send(const std::string& datagram) {
  const sockaddr_un address = address_of_journal();
  const ssize_t sent = sendto(socket_.get(), datagram.data(), datagram.size(), MSG_NOSIGNAL | MSG_DONTWAIT,
                              reinterpret_cast<const sockaddr*>(&address), sizeof address);
  if (sent < 0) ++not_sent_;
  else not_sent_ = 0;
}

}  // namespace rekeyfs::tools
