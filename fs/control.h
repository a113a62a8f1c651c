// Control: the facts and commands of an open store, as JSON requests and answers.
//
// One implementation for a mounted store (the daemon calls it for the ioctl of fs/control_protocol.h) and for an
// unmounted one (the command calls it on the Engine it opened). Thread-safe as the Engine is; it keeps nothing.
//
// A request is {"command": …} and the members the command takes; `name` is one name in the directory, absent for
// the directory itself ("name_hex" carries a name that is not UTF-8). An answer is {"ok": …} or
// {"error": {"code": …, "message": …}}, the code being rekeyfs::name_of(Errc). Text in answers is valid UTF-8: bytes
// that are not become U+FFFD. Whoever can open a directory may see the status and facts of what is in it.
//
//   command     takes        answers
//   session                  pid, store, version
//   sync                     nothing: every change so far is durable
//   status      [name]       progress, path, and refusals: the latest below it, read_only: why the store
//                            takes no changes since a sync failed, else null
//   progress    [name]       kind, status (an image's), replications at or below it, stopped: why nothing goes on in
//                            the background, else null
//   state       path         status of an image below the directory, by its path in the store
//   info        [name]       everything about one node; of the root also store, space, read_only and unknown_features
//   key-create  alias        the new key; the caller owns it
//   key-list                 keys
//   key-show    alias        the key, uses: who needs it, uses_elsewhere: how many more the caller may not see
//   key-rotate, key-enable, key-cancel-deletion
//               alias        the key
//   key-disable alias        the key; [force]: although images need it
//   key-delete  alias        the key, to be deleted after [delay] seconds; [force] as above
//   rotate      alias [name] the number of images that are encrypted anew, and path
//   key-grant, key-revoke
//               alias, user  the key
//   log         [most],      events: the newest `most` of the audit log after number `after`, oldest first; of all
//               [after]      users for root and whoever runs the program, else of the caller
//
// These go through the descriptor of an image; those above do so, too, where they need no name.
//   choose      [key|plain], nothing: the image that was just created has that key, or none, whatever its directory's,
//               [fast_create]  and becomes the disk in what is copied into it
//   refusal                  refusal: code and message; null if changes through the handle are not refused
//   plan        directory,   what a copy of the image into the directory of that number would do; with "estimate" also
//               [key|plain],
//               [fast_create]  bytes_per_second (0: unknown) and rate_from: "recent" replications or "measured" now
#pragma once

#include <optional>
#include <string_view>

#include <nlohmann/json.hpp>

#include "engine/base/result.h"
#include "engine/engine.h"

namespace rekeyfs::fs {

// The reason with that name; std::nullopt for one that this program does not know.
std::optional<Errc> reason_named(std::string_view name);

// Never throws. `directory` is the node whose descriptor the request came through; `file` its handle if it is an image.
nlohmann::json serve_command(Engine& engine, const Caller& caller, Ino directory, const nlohmann::json& request,
                             OpenFile* file = nullptr) noexcept;

// The member of a request that names `name` in the directory.
void put_name(nlohmann::json& request, std::string_view name);

// The "ok" part of an answer, or its error. Errc::invalid for what is not an answer.
Result<nlohmann::json> read_answer(nlohmann::json answer);

}  // namespace rekeyfs::fs
