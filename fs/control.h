// Control: facts about an open store and commands on it, as JSON requests and answers.
//
// One implementation serves both a mounted store (the daemon calls it for the ioctl of fs/control_protocol.h) and an
// unmounted one (the command calls it on the Engine that it opened). As thread-safe as the Engine; stateless.
//
// A request is {"command": …} with the members that the command takes; `name` is one name in the directory, absent for
// the directory itself ("name_hex" holds a name that is not UTF-8). An answer is {"ok": …} or {"error": {"code": …,
// "message": …}}, where the code is rekeyfs::name_of(Errc). Text in answers is valid UTF-8: bytes that are not become
// U+FFFD. A process that can open a directory may see the status and the facts of its entries.
//
//   command     takes        answers
//   session                  pid, store, version
//   sync                     nothing, once all changes so far are durable
//   status      [name]       progress, path, refusals: the latest ones below the path, and read_only: why the store
//                            takes no changes since a failed sync, else null
//   progress    [name]       kind, status (of an image), replications at or below the path, and stopped: why no
//                            background work runs, else null
//   state       path         status of an image below the directory, by its path in the store
//   info        [name]       all facts about one node; for the root also store, space, read_only and unknown_features
//   key-create  alias        the new key; the caller owns it
//   key-list                 keys
//   key-show    alias        the key, uses: images that need it, uses_elsewhere: how many more the caller may not see
//   key-rotate, key-enable, key-cancel-deletion
//               alias        the key
//   key-disable alias        the key; [force]: even if images need it
//   key-delete  alias        the key, to be deleted after [delay] seconds; [force] as above
//   rotate      alias [name] the number of images that are re-encrypted, and path
//   key-grant, key-revoke
//               alias, user  the key
//   log         [most],      events: the newest `most` of the audit log with a number above `after`, oldest first; of
//               [after]      all users for root and the user that runs the program, else of the caller
//
// The commands below go through the descriptor of an image. Those above may, too, if they need no name.
//   choose      [key|plain], nothing; the image that was just created gets that key, or none, regardless of its
//               [fast_create]  directory's policy, and with fast_create becomes the disk in what is copied to it
//   refusal                  refusal: code and message; null if changes through the handle are not refused
//   plan        directory,   what a copy of the image to the directory (an inode number) would do; with "estimate" also
//               [key|plain],   bytes_per_second (0: unknown) and rate_from: "recent" replications or "measured" now
//               [fast_create]
#pragma once

#include <optional>
#include <string_view>

#include <nlohmann/json.hpp>

#include "engine/base/result.h"
#include "engine/engine.h"

namespace rekeyfs::fs {

// The reason with that name; std::nullopt if this program does not know it.
std::optional<Errc> reason_named(std::string_view name);

// Never throws. `directory` is the node whose descriptor the request came through; `file` is its handle if it is an
// image.
nlohmann::json serve_command(Engine& engine, const Caller& caller, Ino directory, const nlohmann::json& request,
                             OpenFile* file = nullptr) noexcept;

// The member of a request for `name` in the directory.
void put_name(nlohmann::json& request, std::string_view name);

// The "ok" part of an answer, or its error. Errc::invalid for a malformed answer.
Result<nlohmann::json> read_answer(nlohmann::json answer);

}  // namespace rekeyfs::fs
