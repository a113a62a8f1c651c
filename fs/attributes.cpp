// Operations on attributes: getattr and setattr, extended attributes, statfs, and the commands' ioctl.

#include <chrono>
#include <cstring>
#include <string_view>

#include <sys/xattr.h>

#include "fs/answer.h"
#include "fs/control.h"
#include "fs/control_protocol.h"
#include "fs/operations.h"
#include "fs/privileges.h"

namespace rekeyfs::fs {
namespace {

constexpr std::chrono::milliseconds kLongestSettling{30};

void get_attributes(fuse_req_t req, fuse_ino_t ino, fuse_file_info*) {
  answer(req, "getattr", ino, [&](Context& context) -> Result<Stat> {
    RK_TRY_ASSIGN(const Attributes attributes, context.engine.names().getattr(Ino{ino}));
    return to_stat(attributes);
  });
}

bool takes_privileges_away(int to_set) {
  if (to_set & FUSE_SET_ATTR_MODE) return false;  // the caller sets the bits explicitly
  if (to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) return true;
  return (to_set & FUSE_SET_ATTR_SIZE) && Device::request_kills_privileges();
}

// Only a change of the content conflicts with a hot copy.
Result<HotImages::Use> enter_to_change(Context& context, Ino ino, const AttributeChange& change) {
  if (!change.size) return HotImages::Use();
  return context.hot.enter(ino, HotImages::Purpose::change);
}

void set_attributes(fuse_req_t req, fuse_ino_t ino, Stat* wanted, int to_set, fuse_file_info* info) {
  answer(req, "setattr", ino, [&](Context& context) -> Result<Stat> {
    AttributeChange change = to_change(*wanted, to_set);
    RK_TRY_ASSIGN(const HotImages::Use use, enter_to_change(context, Ino{ino}, change));
    if (takes_privileges_away(to_set)) RK_TRY(leave_privileges_out(context.engine, Ino{ino}, change));
    OpenFile* file = info != nullptr ? &HandleTable::file(info->fh).file() : nullptr;
    RK_TRY_ASSIGN(const Attributes now, context.engine.names().setattr(Ino{ino}, change, caller_of(req), file));
    return to_stat(now);
  });
}

// The store has attributes of the user namespace only. All others are refused here without asking the engine: the
// kernel reads security.capability before a write, and an access control list would circumvent the rule that an
// encrypted image is not shared.
Status check_name_space(std::string_view name) {
  if (name.starts_with("user.")) return {};
  if (name == "security.capability") return fail(Errc::no_attribute);
  return fail(Errc::not_supported, "rekeyfs stores extended attributes of the user namespace only");
}

void get_attribute_size(fuse_req_t req, fuse_ino_t ino, const char* name) {
  answer(req, "getxattr", ino, [&](Context& context) -> Result<NeededSize> {
    RK_TRY(check_name_space(name));
    RK_TRY_ASSIGN(const std::size_t size, context.engine.names().xattr_size(Ino{ino}, name));
    return NeededSize{size};
  });
}

void get_attribute(fuse_req_t req, fuse_ino_t ino, const char* name, std::size_t room) {
  if (room == 0) return get_attribute_size(req, ino, name);
  answer(req, "getxattr", ino, [&](Context& context) -> Result<Text> {
    RK_TRY(check_name_space(name));
    RK_TRY_ASSIGN(std::string value, context.engine.names().getxattr(Ino{ino}, name));
    if (value.size() > room) return fail(Errc::small_buffer);
    return Text{std::move(value)};
  });
}

Result<std::string> joined_names(Engine& engine, Ino ino) {
  RK_TRY_ASSIGN(const auto names, engine.names().listxattr(ino));
  std::string out;
  for (const std::string& name : names) out.append(name).push_back('\0');
  return out;
}

void list_attributes(fuse_req_t req, fuse_ino_t ino, std::size_t room) {
  if (room == 0) {
    return answer(req, "listxattr", ino, [&](Context& context) -> Result<NeededSize> {
      RK_TRY_ASSIGN(const std::string names, joined_names(context.engine, Ino{ino}));
      return NeededSize{names.size()};
    });
  }
  answer(req, "listxattr", ino, [&](Context& context) -> Result<Text> {
    RK_TRY_ASSIGN(std::string names, joined_names(context.engine, Ino{ino}));
    if (names.size() > room) return fail(Errc::small_buffer);
    return Text{std::move(names)};
  });
}

XattrMode to_set_attribute(int flags) {
  if (flags & XATTR_CREATE) return XattrMode::create;
  return flags & XATTR_REPLACE ? XattrMode::replace : XattrMode::either;
}

void set_attribute(fuse_req_t req, fuse_ino_t ino, const char* name, const char* value, std::size_t size, int flags) {
  answer(req, "setxattr", ino, [&](Context& context) -> Status {
    if (!std::string_view(name).starts_with("user.")) return fail(Errc::not_supported);
    return context.engine.names().setxattr(Ino{ino}, name, {value, size}, to_set_attribute(flags), privileged_caller_of(req));
  });
}

void remove_attribute(fuse_req_t req, fuse_ino_t ino, const char* name) {
  answer(req, "removexattr", ino, [&](Context& context) -> Status {
    RK_TRY(check_name_space(name));
    return context.engine.names().removexattr(Ino{ino}, name, privileged_caller_of(req));
  });
}

void stat_file_system(fuse_req_t req, fuse_ino_t ino) {
  answer(req, "statfs", ino, [&](Context& context) { return context.engine.reports().space_at(Ino{ino}).map(to_statvfs); });
}

// The descriptor that a command came through: a directory or an open image.
struct Through {
  Ino ino;
  FileHandle* file;            // one of the two
  DirectoryHandle* directory;
  KeptAnswer& answer;
};

Through through(Ino ino, const fuse_file_info& info, bool is_directory) {
  if (is_directory) {
    DirectoryHandle& handle = HandleTable::directory(info.fh);
    return {ino, nullptr, &handle, handle.answer()};
  }
  FileHandle& handle = HandleTable::file(info.fh);
  return {ino, &handle, nullptr, handle.answer()};
}

Requester requester_of(Context& context, fuse_req_t req, const Through& handle) {
  Requester requester;
  requester.caller = handle.file ? caller_of(req) : commander_of(req, handle.ino);
  if (!requester.caller.is_operator) requester.groups = credentials_of(fuse_req_ctx(req)->pid).groups;  // it reads /proc
  requester.through = handle.ino;
  if (handle.file) requester.file = &handle.file->file();
  if (handle.directory) requester.draw_token = [&handle](Ino named) { return handle.directory->draw_token(named); };
  requester.directory_with = [&context](const std::string& token) { return context.handles.directory_with(token); };
  return requester;
}

Result<IoctlAnswer> call(Context& context, fuse_req_t req, const Through& handle, std::string_view in) {
  CallRequest request;
  if (in.size() != sizeof(request)) return fail(Errc::invalid);
  std::memcpy(&request, in.data(), sizeof(request));
  if (request.size > kCallBytes) return fail(Errc::invalid);
  const auto parsed = nlohmann::json::parse(request.text, request.text + request.size, nullptr, false);
  if (parsed.is_discarded()) return fail(Errc::invalid, "the request is not valid JSON");
  const nlohmann::json result = serve_command(context.engine, requester_of(context, req, handle), parsed);
  // For a key that was taken away: in the usual case, no pages of its images are left when the command ends.
  context.notifier.settle(kLongestSettling);
  context.answers.keep(handle.answer, fuse_req_ctx(req)->uid, result.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  return IoctlAnswer{};
}

Result<IoctlAnswer> fetch(Context& context, const KeptAnswer& answer, std::string_view in) {
  FetchReply reply{};
  if (in.size() != sizeof(reply)) return fail(Errc::invalid);
  std::memcpy(&reply.offset, in.data(), sizeof(reply.offset));
  RK_TRY_ASSIGN(const KeptAnswers::Piece piece, context.answers.piece(answer, reply.offset, kFetchBytes));
  reply.total = static_cast<std::uint32_t>(piece.total);
  reply.size = static_cast<std::uint32_t>(piece.text.size());
  piece.text.copy(reply.text, piece.text.size());
  return IoctlAnswer{std::string(reinterpret_cast<const char*>(&reply), sizeof(reply))};
}

void control(fuse_req_t req, fuse_ino_t ino, unsigned command, void*, fuse_file_info* info, unsigned flags,
             const void* in, std::size_t in_size, std::size_t) {
  answer(req, "ioctl", ino, [&](Context& context) -> Result<IoctlAnswer> {
    const std::string_view bytes(static_cast<const char*>(in), in_size);
    // Returned as the request's error, not as the ioctl's result: for the kernel's own ioctls (lsattr), a result
    // without the expected bytes becomes EIO.
    if (command != RK_IOC_CALL && command != RK_IOC_FETCH) return fail(Errc::unknown_command);
    const Through handle = through(Ino{ino}, *info, flags & FUSE_IOCTL_DIR);
    return command == RK_IOC_CALL ? call(context, req, handle, bytes) : fetch(context, handle.answer, bytes);
  });
}

}  // namespace

void add_attribute_operations(fuse_lowlevel_ops& table) {
  table.getattr = get_attributes;
  table.setattr = set_attributes;
  table.getxattr = get_attribute;
  table.listxattr = list_attributes;
  table.setxattr = set_attribute;
  table.removexattr = remove_attribute;
  table.statfs = stat_file_system;
  table.ioctl = control;
}

}  // namespace rekeyfs::fs
