#include "fs/control.h"

#include <array>
#include <new>
#include <utility>

#include "engine/base/utf8.h"
#include "fs/commands/commands.h"
#include "fs/commands/facts.h"

namespace rekeyfs::fs {
namespace {

using nlohmann::json;

// Who may give a command, beside what its View and the engine decide.
enum class Admits {
  everybody,
  operators,
  mount_root,  // everybody through the root directory of the mount: keys do not belong to any other
  directory,   // everybody through a directory
  image,       // everybody through an open image
};

struct Row {
  std::string_view command;
  Result<json> (*serve)(const Call&);
  Admits admits;
};

constexpr std::array kRows{
    // clang-format off
    Row{"session", session, Admits::everybody},
    Row{"sync", sync, Admits::operators},
    Row{"status", status, Admits::everybody},
    Row{"progress", progress, Admits::everybody},
    Row{"state", state, Admits::everybody},
    Row{"info", info, Admits::everybody},
    Row{"profile-show", profile_show, Admits::everybody},
    Row{"profile-clear", profile_clear, Admits::everybody},
    Row{"rotate", rotate, Admits::everybody},
    Row{"log", log, Admits::everybody},
    Row{"log-verify", log_verify, Admits::operators},
    Row{"token", token, Admits::directory},
    Row{"choose", choose, Admits::image},
    Row{"refusal", refusal, Admits::image},
    Row{"plan", plan, Admits::image},
    Row{"key-create", key_create, Admits::mount_root},
    Row{"key-list", key_list, Admits::mount_root},
    Row{"key-show", key_show, Admits::mount_root},
    Row{"key-rotate", key_change<KeyChange::Kind::rotate>, Admits::mount_root},
    Row{"key-disable", key_change<KeyChange::Kind::disable>, Admits::mount_root},
    Row{"key-enable", key_change<KeyChange::Kind::enable>, Admits::mount_root},
    Row{"key-delete", key_change<KeyChange::Kind::schedule_deletion>, Admits::mount_root},
    Row{"key-cancel-deletion", key_change<KeyChange::Kind::cancel_deletion>, Admits::mount_root},
    Row{"key-grant", key_change<KeyChange::Kind::grant>, Admits::mount_root},
    Row{"key-revoke", key_change<KeyChange::Kind::revoke>, Admits::mount_root},
    // clang-format on
};

Status admit(const Requester& requester, Admits admits) {
  switch (admits) {
    case Admits::everybody: return {};
    case Admits::operators:
      if (requester.caller.is_operator) return {};
      return fail(Errc::not_permitted, "only operators may do that: who mounted the store, and root, through the root directory of the mount");
    case Admits::mount_root:
      if (requester.through == kRootIno) return {};
      return fail(Errc::not_permitted, "keys are shown and changed only through the root directory of the mount: give a path in a mount "
                                       "of the whole store, whose top directory you may read");
    case Admits::directory:
      if (!requester.file) return {};
      return fail(Errc::invalid, "the command must be sent through an open directory");
    case Admits::image:
      if (requester.file) return {};
      return fail(Errc::invalid, "the command must be sent through an open image");
  }
  return {};  // not reached
}

const Row* row_of(const std::string& command) {
  for (const Row& row : kRows)
    if (row.command == command) return &row;
  return nullptr;
}

Result<json> serve(Engine& engine, const Requester& requester, const json& request) {
  if (!request.is_object()) return fail(Errc::invalid, "the request is not a JSON object");
  View view(engine, requester);
  const Call call{engine, requester, request, view};
  RK_TRY_ASSIGN(const std::string command, required_text(call, "command"));
  const Row* const row = row_of(command);
  if (!row)
    return fail(Errc::not_supported, "the daemon of the mount (rekeyfs " REKEYFS_VERSION ") does not know the command \"" + command +
                                         "\"; unmount, and mount again with the newer version");
  const Status admitted = admit(requester, row->admits);
  if (!admitted && row->admits == Admits::mount_root)
    engine.keys().record_refusal(required_text(call, "alias").value_or(""), requester.caller, admitted.error());
  RK_TRY(admitted);
  return row->serve(call);
}

json answer_of(const Error& error) { return {{"error", facts_of(error)}}; }

}  // namespace

std::optional<Errc> reason_named(std::string_view name) {
  for (int number = 0; number < 256; ++number) {
    auto code = static_cast<Errc>(number);
    if (name_of(code) == name) return code;
  }
  return std::nullopt;
}

json serve_command(Engine& engine, const Requester& requester, const json& request) noexcept {
  try {
    Result<json> answer = serve(engine, requester, request);
    return answer ? json{{"ok", std::move(*answer)}} : answer_of(answer.error());
  } catch (const std::bad_alloc&) {
    return answer_of(Error{Errc::no_memory, ""});
  } catch (const std::exception& exception) {
    return answer_of(Error{Errc::invalid, std::string("the request failed: ") + exception.what()});
  }
}

void put_path(json& request, std::string_view path) {
  if (is_utf8(path)) {
    request["path"] = path;
    return;
  }
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (const unsigned char byte : path) {
    hex += kDigits[byte >> 4];
    hex += kDigits[byte & 15];
  }
  request["path_hex"] = hex;
}

Result<json> read_answer(json answer) {
  if (answer.is_object() && answer.contains("ok")) return std::move(answer["ok"]);
  if (!answer.is_object() || !answer.contains("error") || !answer["error"].is_object())
    return fail(Errc::invalid,
                "the daemon sent an unknown answer; check that it has the same version as this program");
  const json& error = answer["error"];
  auto part = [&](const char* member) {
    auto found = error.find(member);
    return found != error.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  return fail(reason_named(part("code")).value_or(Errc::io), part("message"));
}

}  // namespace rekeyfs::fs
