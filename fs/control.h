// Control: facts about an open store and commands on it, as JSON requests and answers.
//
// One implementation serves both a mounted store (the daemon calls it for the ioctl of fs/control_protocol.h) and an
// unmounted one (the command calls it on the Engine that it opened). As thread-safe as the Engine; stateless.
//
// A request is {"command": …} with the members that the command takes. An answer is {"ok": …} or {"error": {"code": …,
// "message": …}}, where the code is rekeyfs::name_of(Errc). Text in answers is valid UTF-8: bytes that are not become
// U+FFFD. Which commands are served to whom is decided in three steps: the table in control.cpp says who may give each
// command and through which descriptor; a View (fs/commands/view.h) limits what it names and tells to what its sender
// could find out through the file system; the engine decides about keys, by Caller.
//
// `path` is names separated by '/', from the directory on that the request came through; absent for that directory
// itself ("path_hex" holds a path that is not UTF-8). Paths in answers are such paths, too.
//
//   command     takes        answers
//   session                  version; for operators also pid and store
//   sync                     nothing, once all changes so far are durable
//   status      [path]       progress, path, refusals: the latest ones at or below the path, and read_only: why the
//                            store takes no changes since a failed sync, else null
//   progress    [path],      kind, status (of an image), replications at or below the path, and stopped: why no
//               [after]      background work runs, else null. If there are too many replications for one answer, `next`
//                            is the value of `after` for the rest of them, else null
//   state       path         status of an image
//   info        [path]       all facts about one node; for the root also store, space, read_only and unknown_features.
//                            Null for what the sender may not read
//   profile-show, profile-clear
//               [path]       the boot profile of an image
//   rotate      alias [path] the number of images that are re-encrypted, path, and skipped: what keeps its key, and why
//   key-create  alias        the new key; the caller owns it
//   key-list                 keys
//   key-show    alias        the key, uses: images that need it, uses_elsewhere: how many more the sender does not see
//   key-rotate, key-enable, key-cancel-deletion
//               alias        the key
//   key-disable alias        the key; [force]: even if images need it
//   key-delete  alias        the key, to be deleted after [delay] seconds; [force] as above
//   key-grant, key-revoke
//               alias, user  the key; [right] "declassify": only that right, else the right to use it or, to revoke, all
//   log         [most],      events: the newest `most` of the audit log with a number above `after`, or with `oldest` the
//               [after],     oldest of those, oldest first; `all`: of all users, for operators, else the sender's own. If
//               [oldest]     the answer would be long, it ends earlier. last: the number to go on after; null at the end
//   log-verify               whether the log is whole: first, last: numbers of the events that the chain covers, events:
//                            how many of these it has, unverified: events from before the chain, problems
//   token       [path]       token: a secret that stands for that directory in the command plan
//
// The commands below go through the descriptor of an image. Those above may, too, if they need no path.
//   choose      [key|plain], nothing; the image that was just created gets that key, or none, regardless of its
//               [fast_create]  directory's policy, and with fast_create becomes the disk in what is copied to it
//   refusal                  refusal: code and message; null if changes through the handle are not refused
//   plan        directory,   what a copy of the image to the directory (its token) would do; with "estimate" also
//               [key|plain],   bytes_per_second (0: unknown) and rate_from: "recent" replications or "measured" now
//               [fast_create]
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/base/result.h"
#include "engine/engine.h"

namespace rekeyfs::fs {

// Who sends a request, and the descriptor that it comes through.
struct Requester {
  Caller caller;
  std::vector<gid_t> groups;  // supplementary ones
  Ino through = kRootIno;     // node of the descriptor
  OpenFile* file = nullptr;   // set if that is an image
  // Draws a token for a directory, which lives as long as the descriptor; and the directory that a token stands for.
  std::function<std::string(Ino)> draw_token = [](Ino) { return std::string(); };
  std::function<std::optional<Ino>(const std::string&)> directory_with = [](const std::string&) { return std::optional<Ino>(); };
};

// The reason with that name; std::nullopt if this program does not know it.
std::optional<Errc> reason_named(std::string_view name);

// Never throws.
nlohmann::json serve_command(Engine& engine, const Requester& requester, const nlohmann::json& request) noexcept;

// The member of a request for `path`.
void put_path(nlohmann::json& request, std::string_view path);

// The "ok" part of an answer, or its error. Errc::invalid for a malformed answer.
Result<nlohmann::json> read_answer(nlohmann::json answer);

}  // namespace rekeyfs::fs
