#include "tools/daemon_call.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include <sys/ioctl.h>
#include <sys/vfs.h>

#include <linux/magic.h>

#include "fs/control.h"
#include "fs/control_protocol.h"

namespace rekeyfs::tools {
namespace {

tl::unexpected<Failure> not_mounted(const std::string& path) {
  return fail(ExitCode::not_mounted,
              path + " is not in a rekeyfs mount; mount a store with: rekeyfs mount STORE MOUNTPOINT");
}

// Another file system might give our ioctl numbers another meaning.
bool is_fuse(int directory) {
  struct statfs facts {};
  return fstatfs(directory, &facts) == 0 && facts.f_type == FUSE_SUPER_MAGIC;
}

tl::unexpected<Failure> refused_call(const std::string& path) {
  if (errno == ENOTTY || errno == ENOSYS || errno == EINVAL || errno == EOPNOTSUPP) return not_mounted(path);
  return tl::unexpected<Failure>(error_from_errno(errno, "send a request to the daemon of " + path));
}

tl::unexpected<Failure> dropped(const std::string& path) {
  return fail(ExitCode::failure, "the daemon of " + path +
                                     " has dropped its answer, because many other commands of the same user are running; try again");
}

Outcome<void> send(int directory, const std::string& path, const std::string& text) {
  auto call = std::make_unique<fs::CallRequest>();
  if (text.size() > sizeof call->text) return fail(ExitCode::usage, "the names in the command are too long");
  call->size = static_cast<std::uint32_t>(text.size());
  std::memcpy(call->text, text.data(), text.size());
  if (ioctl(directory, RK_IOC_CALL, call.get()) != 0) return refused_call(path);
  return {};
}

Outcome<std::string> fetch(int directory, const std::string& path) {
  std::string text;
  auto piece = std::make_unique<fs::FetchReply>();
  do {
    piece->offset = text.size();
    if (ioctl(directory, RK_IOC_FETCH, piece.get()) != 0) return errno == ESTALE ? dropped(path) : refused_call(path);
    std::size_t size = std::min<std::size_t>(piece->size, sizeof piece->text);
    text.append(piece->text, size);
    if (size == 0) break;
  } while (text.size() < piece->total);
  return text;
}

}  // namespace

Outcome<nlohmann::json> call_daemon(int directory, const std::string& path, const nlohmann::json& request) {
  if (!is_fuse(directory)) return not_mounted(path);
  RK_TRY(send(directory, path, request.dump()));
  RK_TRY_ASSIGN(std::string text, fetch(directory, path));
  RK_TRY_ASSIGN(nlohmann::json answer, fs::read_answer(nlohmann::json::parse(text, nullptr, false)));
  return answer;
}

}  // namespace rekeyfs::tools
