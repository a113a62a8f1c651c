#include "engine/formats/format_reader.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

namespace rekeyfs::formats {
namespace {

using Json = nlohmann::json;

constexpr std::chrono::steady_clock::duration kFirstUse = std::chrono::seconds(1);
constexpr int kConnections = 4;  // maximum number of concurrent reads

struct ExportSockets {
  Descriptor listener;
  std::vector<Descriptor> clients;
};

// Creates a listening socket for the reader's process, with all the connections it will ever have. Its name is
// abstract, so there is no file. Until it is closed to others, another local user could connect to it; but its queue
// has exactly the length needed: either all our connections fit, and then no other is among them, or one is refused.
Result<ExportSockets> make_export_sockets() {
  ExportSockets sockets{.listener = Descriptor(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)), .clients = {}};
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  socklen_t length = sizeof name.sun_family;  // the address family only: the kernel chooses a name
  const int listener = sockets.listener.get();
  if (listener < 0 || ::bind(listener, reinterpret_cast<const sockaddr*>(&name), length) != 0 ||
      ::listen(listener, kConnections - 1) != 0)
    return fail(error_from_errno(errno, "create a socket for a format reader"));
  length = sizeof name;
  if (::getsockname(listener, reinterpret_cast<sockaddr*>(&name), &length) != 0)
    return fail(error_from_errno(errno, "name a socket for a format reader"));
  for (int count = 0; count < kConnections; ++count) {
    Descriptor client(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!client || ::connect(client.get(), reinterpret_cast<const sockaddr*>(&name), length) != 0)
      return fail(error_from_errno(errno, "connect to a socket for a format reader"));
    sockets.clients.push_back(std::move(client));
  }
  if (::shutdown(listener, SHUT_RD) != 0)
    return fail(error_from_errno(errno, "close the listening socket of a format reader"));
  return sockets;
}

// Arguments for qemu-storage-daemon to open the image and to wait for connections.
std::vector<std::string> storage_daemon_arguments(Format format, int image, int listener) {
  const bool knows_backing = format == Format::qcow2 || format == Format::qcow || format == Format::qed || format == Format::vmdk;
  const Json image_node{{"driver", "nbd"},
                        {"node-name", "image"},
                        {"read-only", true},
                        {"server", {{"type", "fd"}, {"str", std::to_string(image)}}}};
  Json disk_node{{"driver", name_of(format)}, {"node-name", "disk"}, {"read-only", true}, {"file", "image"}};
  if (knows_backing) disk_node["backing"] = nullptr;
  return {
      "--blockdev",
      image_node.dump(),
      "--blockdev",
      disk_node.dump(),
      "--nbd-server",
      "addr.type=fd,addr.str=" + std::to_string(listener) + ",max-connections=" + std::to_string(kConnections),
      "--export",
      "type=nbd,id=disk,node-name=disk,name=disk",
  };
}

}  // namespace

Result<std::shared_ptr<FormatReader>> FormatReader::start(std::shared_ptr<Content> image, Format format,
                                                          const Patience& patience) {
  std::shared_ptr<FormatReader> reader(new FormatReader(patience));
  RK_TRY(reader->launch(std::move(image), format));
  return reader;
}

FormatReader::~FormatReader() { end(State::ended); }

Status FormatReader::launch(std::shared_ptr<Content> image, Format format) {
  std::array<int, 2> pair{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0)
    return fail(error_from_errno(errno, "create sockets for a format reader"));
  Descriptor ours(pair[0]);
  Descriptor theirs(pair[1]);
  RK_TRY_ASSIGN(ExportSockets sockets, make_export_sockets());
  server_ = std::make_unique<ImageServer>(std::move(image), std::move(ours));
  RK_TRY(server_->start());

  const Clock::time_point deadline = Clock::now() + patience_.start;
  constexpr int kImage = SandboxedProcess::kFirstDescriptor, kListener = kImage + 1;
  RK_TRY_ASSIGN(process_, SandboxedProcess::start({.program = "/usr/bin/qemu-storage-daemon",
                                                   .arguments = storage_daemon_arguments(format, kImage, kListener),
                                                   .descriptors = {theirs.get(), sockets.listener.get()}},
                                                  deadline));
  theirs = {};
  sockets.listener = {};
  for (Descriptor& client : sockets.clients) {
    auto connection = DiskConnection::open(std::move(client), deadline);
    if (!connection) {
      end(State::ended);
      process_->wait();
      return fail(explain(connection.error(), 0));
    }
    size_ = (*connection)->size();
    Lock lock(mutex_);
    idle_.push_back(std::move(*connection));
  }
  process_->extend_lease(Clock::now() + patience_.idle);
  Lock lock(mutex_);
  last_used_ = Clock::now();
  return {};
}

Status FormatReader::read(std::uint64_t offset, ByteSpan out) {
  while (!out.empty()) {
    const ByteSpan part = out.first(std::min<std::size_t>(out.size(), DiskConnection::kMaxRead));
    RK_TRY(with_connection([&](DiskConnection& connection, Clock::time_point deadline) { return connection.read(offset, part, deadline); }));
    offset += part.size();
    out = out.subspan(part.size());
  }
  return {};
}

Result<Extent> FormatReader::extent_at(std::uint64_t offset, std::uint64_t length) {
  const auto asked = static_cast<std::uint32_t>(std::min<std::uint64_t>(length, DiskConnection::kMaxExtent));
  Extent extent{};
  RK_TRY(with_connection([&](DiskConnection& connection, Clock::time_point deadline) -> Status {
    RK_TRY_ASSIGN(extent, connection.extent_at(offset, asked, deadline));
    return {};
  }));
  return extent;
}

template <typename Use>
Status FormatReader::with_connection(Use use) {
  const Clock::time_point now = Clock::now(), deadline = now + patience_.answer;
  process_->extend_lease(now + patience_.idle);
  const std::uint64_t failures = server_->failures();
  RK_TRY_ASSIGN(Connection connection, borrow(deadline));
  const Status used = use(*connection, deadline);
  if (used) {
    give_back(std::move(connection));
    return {};
  }
  if (!connection->is_usable()) end(Clock::now() < deadline ? State::ended : State::hung);
  give_back(std::move(connection));
  return fail(explain(used.error(), failures));
}

Result<FormatReader::Connection> FormatReader::borrow(Clock::time_point deadline) {
  Lock lock(mutex_);
  while (idle_.empty() && state_ == State::running && Clock::now() < deadline) returned_.wait_for(mutex_, deadline - Clock::now());
  if (state_ != State::running) return fail(Errc::io, "the format reader has ended");
  if (idle_.empty()) return fail(Errc::io, "the format reader is busy with other reads");
  Connection connection = std::move(idle_.back());
  idle_.pop_back();
  ++borrowed_;
  was_used_ = true;
  return connection;
}

// A connection that is of no use any more is closed.
void FormatReader::give_back(Connection connection) {
  bool was_last = false;
  {
    Lock lock(mutex_);
    --borrowed_;
    was_last = state_ == State::retired && borrowed_ == 0;
    if (state_ == State::running) idle_.push_back(std::move(connection));
    last_used_ = Clock::now();
    returned_.notify_all();
  }
  if (was_last) stop();
}

void FormatReader::end(State state) {
  {
    Lock lock(mutex_);
    if (state_ == State::running || state_ == State::retired) state_ = state;
    idle_.clear();
    returned_.notify_all();
  }
  stop();
}

void FormatReader::stop() {
  if (process_) process_->kill();
  if (server_) server_->stop();
}

FormatReader::Clock::time_point FormatReader::last_used() const {
  Lock lock(mutex_);
  return last_used_;
}

void FormatReader::end_if_idle_for(Clock::duration least) {
  {
    Lock lock(mutex_);
    const bool is_idle = borrowed_ == 0 && Clock::now() - last_used_ >= (was_used_ ? least : std::max(least, kFirstUse));
    if (!is_idle || state_ != State::running) return;
    state_ = State::retired;
    idle_.clear();
  }
  stop();
}

void FormatReader::retire() {
  bool is_idle = false;
  {
    Lock lock(mutex_);
    if (state_ != State::running) return;
    state_ = State::retired;
    is_idle = borrowed_ == 0;
    idle_.clear();
    returned_.notify_all();
  }
  if (is_idle) stop();
}

bool FormatReader::has_retired_by(Clock::time_point deadline) {
  Lock lock(mutex_);
  while (state_ == State::retired && borrowed_ > 0 && Clock::now() < deadline) returned_.wait_for(mutex_, deadline - Clock::now());
  return state_ != State::retired || borrowed_ == 0;
}

bool FormatReader::is_over() const {
  Lock lock(mutex_);
  if (state_ == State::retired) return borrowed_ == 0;
  return state_ != State::running || process_->ended();
}

FormatReader::State FormatReader::state() const {
  Lock lock(mutex_);
  return state_ == State::running && process_->ended() ? State::ended : state_;
}

// If the image could not be read, that error is the cause.
Error FormatReader::explain(const Error& error, std::uint64_t failures_before) const {
  const auto failure = server_->last_failure();
  if (failure && server_->failures() > failures_before) return *failure;
  const std::string complaint = process_->take_complaint();
  return complaint.empty() ? error : Error{error.code, error.message + "; it says: " + complaint};
}

}  // namespace rekeyfs::formats
