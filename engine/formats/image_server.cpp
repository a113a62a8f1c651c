#include "engine/formats/image_server.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <concepts>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/read.h"
#include "engine/formats/threads.h"

namespace rekeyfs::formats {
namespace {

// Names and numbers from the NBD specification.
constexpr std::uint64_t kInitMagic = 0x4e42444d41474943;    // NBDMAGIC
constexpr std::uint64_t kOptionMagic = 0x49484156454f5054;  // IHAVEOPT
constexpr std::uint64_t kOptionReplyMagic = 0x3e889045565a9;
constexpr std::uint32_t kRequestMagic = 0x25609513, kReplyMagic = 0x67446698;
constexpr std::uint16_t kFlagFixedNewstyle = 1 << 0, kFlagNoZeroes = 1 << 1;
constexpr std::uint32_t kOptionAbort = 2, kOptionInfo = 6, kOptionGo = 7;
constexpr std::uint32_t kReplyAck = 1, kReplyInfo = 3, kReplyUnsupported = (1u << 31) + 1, kReplyInvalid = (1u << 31) + 3;
constexpr std::uint16_t kInfoExport = 0, kInfoBlockSize = 3;
constexpr std::uint16_t kFlagHasFlags = 1 << 0, kFlagReadOnly = 1 << 1;
constexpr std::uint16_t kCommandRead = 0, kCommandWrite = 1, kCommandDisconnect = 2;
constexpr std::uint32_t kIoError = 5, kInvalidError = 22;  // EIO, EINVAL on the wire

constexpr std::size_t kRequestSize = 28;
constexpr std::uint32_t kMaxOptionData = 4096;
constexpr int kMaxOptions = 32;
constexpr std::uint32_t kSector = 512, kPreferredRead = 4096;

// NBD numbers are big-endian.
template <std::unsigned_integral T>
void put(std::string& out, T value) {
  for (int shift = 8 * (static_cast<int>(sizeof(T)) - 1); shift >= 0; shift -= 8) out.push_back(static_cast<char>(value >> shift));
}
template <std::unsigned_integral T>
T get(Reader& in) {
  T value = 0;
  for (const std::byte byte : in.get_raw(sizeof(T))) value = static_cast<T>(value << 8 | std::to_integer<T>(byte));
  return value;
}

bool receive(int socket, ByteSpan out) { return read_full(socket, out) == out.size(); }

bool send(int socket, ByteView head, ByteView data) {
  std::array<iovec, 2> parts{iovec{const_cast<std::byte*>(head.data()), head.size()},
                             iovec{const_cast<std::byte*>(data.data()), data.size()}};
  std::size_t left = head.size() + data.size();
  for (std::size_t first = 0; left > 0;) {
    msghdr message{};
    message.msg_iov = &parts[first];
    message.msg_iovlen = parts.size() - first;
    const ssize_t count = ::sendmsg(socket, &message, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    left -= static_cast<std::size_t>(count);
    for (auto sent = static_cast<std::size_t>(count); sent > 0;) {
      const std::size_t step = std::min(sent, parts[first].iov_len);
      parts[first].iov_base = static_cast<char*>(parts[first].iov_base) + step;
      parts[first].iov_len -= step;
      sent -= step;
      if (parts[first].iov_len == 0) ++first;
    }
  }
  return true;
}

}  // namespace

ImageServer::ImageServer(std::shared_ptr<Content> image, Descriptor socket)
    : image_(std::move(image)), size_((image_->size() + kSector - 1) / kSector * kSector), socket_(std::move(socket)) {}

ImageServer::~ImageServer() {
  stop();
  for (std::thread& thread : threads_)
    if (thread.joinable()) thread.join();
}

Status ImageServer::start() {
  Lock lock(work_mutex_);
  for (std::thread& thread : threads_) {
    RK_TRY(run_thread(thread, [this] { serve(); }));
    ++at_work_;
  }
  return {};
}

bool ImageServer::is_done_by(std::chrono::steady_clock::time_point deadline) {
  stop();
  Lock lock(work_mutex_);
  while (at_work_ > 0 && std::chrono::steady_clock::now() < deadline)
    worked_.wait_for(work_mutex_, deadline - std::chrono::steady_clock::now());
  return at_work_ == 0;
}

void ImageServer::stop() { ::shutdown(socket_.get(), SHUT_RDWR); }

std::optional<Error> ImageServer::last_failure() const {
  Lock lock(failure_mutex_);
  return last_failure_;
}

void ImageServer::serve() {
  std::vector<std::byte> buffer;
  while (const auto request = next_request()) {
    if (buffer.size() < std::min(request->length, kMaxRead)) buffer.resize(std::min(request->length, kMaxRead));
    if (!answer(*request, buffer)) break;
  }
  stop();
  Lock lock(work_mutex_);
  --at_work_;
  worked_.notify_all();
}

std::optional<ImageServer::Request> ImageServer::next_request() {
  Lock lock(receiving_);
  if (phase_ == Phase::handshake) phase_ = negotiate() ? Phase::ready : Phase::ended;
  std::array<std::byte, kRequestSize> raw{};
  if (phase_ == Phase::ended || !receive(socket_.get(), raw)) return std::nullopt;
  Reader in{ByteView(raw)};
  const bool is_request = get<std::uint32_t>(in) == kRequestMagic;
  Request request;
  request.flags = get<std::uint16_t>(in);
  request.type = get<std::uint16_t>(in);
  request.cookie = get<std::uint64_t>(in);
  request.offset = get<std::uint64_t>(in);
  request.length = get<std::uint32_t>(in);
  // The data of a write would follow, but the peer was told that the export is read-only: a protocol violation.
  if (is_request && request.type != kCommandWrite && request.type != kCommandDisconnect) return request;
  phase_ = Phase::ended;
  return std::nullopt;
}

bool ImageServer::answer(const Request& request, ByteSpan buffer) {
  if (request.type != kCommandRead || request.flags != 0 || request.length == 0 || request.length > kMaxRead ||
      request.offset > size_ || request.length > size_ - request.offset)
    return send_reply(request, kInvalidError, {});
  const ByteSpan out = buffer.first(request.length);
  const std::uint32_t error = read(request, out);
  return send_reply(request, error, error == 0 ? ByteView(out) : ByteView());
}

std::uint32_t ImageServer::read(const Request& request, ByteSpan out) {
  const Status status = image_->read(request.offset, out);
  if (status) return 0;
  Lock lock(failure_mutex_);
  last_failure_ = status.error();
  ++failures_;
  return kIoError;
}

bool ImageServer::send_reply(const Request& request, std::uint32_t error, ByteView data) {
  std::string head;
  put(head, kReplyMagic);
  put(head, error);
  put(head, request.cookie);
  Lock lock(sending_);
  return send(socket_.get(), as_bytes(head), data);
}

bool ImageServer::negotiate() {
  std::string greeting;
  put(greeting, kInitMagic);
  put(greeting, kOptionMagic);
  put(greeting, static_cast<std::uint16_t>(kFlagFixedNewstyle | kFlagNoZeroes));
  std::array<std::byte, 4> flags{};
  if (!send(socket_.get(), as_bytes(greeting), {}) || !receive(socket_.get(), flags)) return false;
  Reader in{ByteView(flags)};
  // A client without NO_ZEROES would expect padding after an old option, which is not supported here.
  if ((get<std::uint32_t>(in) & ~std::uint32_t{kFlagNoZeroes}) != kFlagFixedNewstyle) return false;

  for (int count = 0; count < kMaxOptions; ++count) {
    std::array<std::byte, 16> raw{};
    if (!receive(socket_.get(), raw)) return false;
    Reader head{ByteView(raw)};
    const bool is_option = get<std::uint64_t>(head) == kOptionMagic;
    const auto option = get<std::uint32_t>(head), length = get<std::uint32_t>(head);
    if (!is_option || length > kMaxOptionData) return false;
    std::vector<std::byte> data(length);
    if (!receive(socket_.get(), data) || !answer_option(option, data)) return false;
    if (option == kOptionGo) {
      shown_ = true;
      return true;
    }
  }
  return false;
}

bool ImageServer::answer_option(std::uint32_t option, ByteView data) {
  if (option == kOptionAbort) {
    send_option_reply(option, kReplyAck, {});
    return false;
  }
  if (option != kOptionInfo && option != kOptionGo) return send_option_reply(option, kReplyUnsupported, {});
  Reader in(data);
  // Export name: ignored, because there is one export.
  in.get_raw(get<std::uint32_t>(in));
  // Information requests: ignored, because the reply always contains everything.
  in.get_raw(sizeof(std::uint16_t) * std::size_t{get<std::uint16_t>(in)});
  if (!in.finished()) {
    send_option_reply(option, kReplyInvalid, {});
    return false;
  }
  std::string facts, sizes;
  put(facts, kInfoExport);
  put(facts, size_);
  put(facts, static_cast<std::uint16_t>(kFlagHasFlags | kFlagReadOnly));
  put(sizes, kInfoBlockSize);
  put(sizes, kSector);
  put(sizes, kPreferredRead);
  put(sizes, kMaxRead);
  return send_option_reply(option, kReplyInfo, as_bytes(facts)) && send_option_reply(option, kReplyInfo, as_bytes(sizes)) &&
         send_option_reply(option, kReplyAck, {});
}

bool ImageServer::send_option_reply(std::uint32_t option, std::uint32_t type, ByteView data) {
  std::string head;
  put(head, kOptionReplyMagic);
  put(head, option);
  put(head, type);
  put(head, static_cast<std::uint32_t>(data.size()));
  return send(socket_.get(), as_bytes(head), data);
}

}  // namespace rekeyfs::formats
