// Engine: one open store. The whole of what fs/ and tools/ see of the engine.
//
// Modelled on the kernel's VFS: nodes are numbers (Ino), content is reached through an OpenFile. It knows
// neither FUSE nor a terminal. All members are thread-safe unless they say otherwise; nothing throws.
// Permission bits are NOT checked here (the kernel does, mount option default_permissions; the commands act as
// root or the store's owner); rules of the image store (design section 4) are.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include "engine/base/bytes.h"
#include "engine/base/credential.h"
#include "engine/base/ids.h"
#include "engine/base/result.h"

namespace rekeyfs {

// Who asks. The umask is applied by the caller of the engine (FUSE applies it in the kernel).
struct Caller {
  uid_t uid = 0;
  gid_t gid = 0;
};

enum class NodeKind : std::uint8_t { directory = 1, image = 2, symlink = 3 };  // numbers on disk

struct Attributes {
  Ino ino;
  NodeKind kind = NodeKind::image;
  mode_t permissions = 0;  // 07777
  std::uint32_t links = 1;
  uid_t uid = 0;
  gid_t gid = 0;
  std::uint64_t size = 0;  // bytes; an image's content, a symlink's target
  Timestamp accessed = 0, modified = 0, changed = 0;
};

// What setattr changes; an absent member stays.
struct AttributeChange {
  std::optional<mode_t> permissions;
  std::optional<uid_t> uid;
  std::optional<gid_t> gid;
  std::optional<std::uint64_t> size;
  std::optional<Timestamp> accessed, modified, changed;
};

struct DirectoryEntry {
  std::string name;
  Ino ino;
  NodeKind kind;
  std::uint64_t next;  // the cookie after this entry; cookies stay valid while the directory changes
};

enum class ImageState : std::uint8_t {  // numbers on disk
  creating = 1,
  normal_uninitialized = 2,
  normal = 3,
  replicating = 4,
  error = 5,
};
std::string_view name_of(ImageState state);

// An image opened by somebody. Created by open() and create(), given back by release().
class OpenFile;
struct OpenFileDeleter {
  void operator()(OpenFile* file) const;
};
using OpenFilePtr = std::unique_ptr<OpenFile, OpenFileDeleter>;

// Told of changes that the kernel's caches cannot see coming. Called without engine locks held.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void entry_removed(Ino parent, std::string_view name) = 0;
  virtual void content_changed(Ino ino) = 0;     // cached pages and attributes are wrong
  virtual void permissions_changed(Ino ino) = 0;
};

// One replication, running or waiting, for `status`.
struct Replication {
  Ino ino;
  std::string path;        // of the target, from the store's root ("/tenant-a/debian.qcow2")
  std::string source;      // path of the source when it was copied
  std::string key_before;  // alias; empty for plain
  std::string key_after;
  ImageState state = ImageState::replicating;
  std::string error;        // why it does not go on, and what to do
  std::uint64_t bytes_total = 0;
  std::uint64_t bytes_done = 0;
  double bytes_per_second = 0;  // lately; 0 if unknown
  Timestamp started = 0;
};

struct Refusal {
  Timestamp time = 0;
  std::string path;    // the target that was refused
  std::string source;
  std::string rule;    // a sentence
  Errc code = Errc::invalid;
  uid_t uid = 0;
};

// An entry of the audit log: who did what, and when.
enum class EventKind : std::uint8_t {  // numbers on disk
  replication_asked = 1,      // the copy is made and usable, its blocks follow
  replication_completed = 2,  // the replica needs its source no more
  replication_failed = 3,     // it does not go on; `text` says why
  replication_recovered = 4,  // it goes on again
  cloned = 5,                 // a copy within one key: complete at once
  refused = 6,                // `text` is the rule, `code` what the caller got
  key_created = 7,
  key_rotated = 8,
  key_disabled = 9,
  key_enabled = 10,
  key_deletion_asked = 11,
  key_deletion_cancelled = 12,
  key_deleted = 13,           // nobody can read what it encrypts any more
  key_granted = 14,           // `text` says to whom
  key_revoked = 15,
  rotation_asked = 16,        // a directory is given a new key; each of its images is a replication of its own
};
std::string_view name_of(EventKind kind);  // "replication-asked"; empty for a number that is none

struct EventKey {
  std::string id;     // hex; empty for plain
  std::string alias;  // as it was then
};
struct Event {
  std::uint64_t number = 0;  // ascending; not every number is there
  EventKind kind = EventKind::refused;
  Timestamp time = 0;
  uid_t uid = 0;       // who asked; of what happens in the background: who had asked for it
  std::string path;    // of the target, from the store's root
  std::string source;  // path of the source when it was copied
  EventKey key;        // of the target; the one that a key operation is about
  EventKey key_before;  // of the source
  std::optional<Errc> code;
  std::string text;               // a sentence, where there is more to say
  std::uint64_t bytes = 0;        // replication_completed: transformed since it was last taken up
  std::uint64_t nanoseconds = 0;  // and how long that took; 0: not known
};

struct EventQuery {
  std::optional<uid_t> uid;  // only this user's
  std::optional<EventKind> kind;
  std::uint64_t after = 0;  // only those with a higher number
  std::size_t most = 100;   // the newest that many
};

// What a layer is made of, for `info`, youngest first.
struct LayerInfo {
  LayerId id;
  std::string key;              // alias; empty for plain
  std::string key_id;           // hex; empty for plain
  std::uint32_t key_version = 0;
  std::string suite;            // "aes-256-gcm", "chacha20-poly1305", "plain"
  std::uint32_t block_size = 0; // bytes
  std::uint64_t stored = 0;     // bytes of blocks it holds itself
};

struct Attribute {
  std::string name;  // whole, "user.…"
  std::string value;
};

// A key that an image cannot be read without.
struct KeyNeed {
  std::string key;    // alias
  std::string until;  // words: "until it is deleted"
};

// What an image was copied from.
struct Origin {
  std::string source;      // the id of an image; its own if its directory was given a new key
  std::string key_before;  // alias; empty for plain
  Timestamp replicated = 0;
  Timestamp completed = 0;  // since when it needs its source no more; 0: it still does
};

// What the first boot from an image read of it.
struct BootReads {
  struct Range {
    std::uint64_t offset = 0, size = 0;  // bytes
  };
  Timestamp recorded = 0;
  std::vector<Range> ranges;  // in the order in which they were read, none of them twice
  std::uint64_t bytes = 0;    // of all together
};

struct NodeInfo {
  Attributes attributes;
  std::string path;
  std::vector<Attribute> ours;    // every user.rekeyfs.* that has a value
  std::vector<Attribute> others;  // listed ones
  std::optional<Origin> origin;
  std::vector<LayerInfo> layers;
  std::vector<KeyNeed> keys_needed;
};

struct KeyFacts {
  std::string id;  // hex
  std::string alias;
  std::string state;  // "enabled", "disabled", "pending-deletion"
  std::uint32_t version = 1;  // the one that wraps new data keys
  std::uint32_t oldest = 1;   // kept for data keys that were wrapped before a rotation
  uid_t owner = 0;
  Timestamp created = 0;
  Timestamp deletion = 0;       // when it takes place, if pending; 0 otherwise
  std::vector<uid_t> grantees;  // who may use it beside its owner and root
};
struct KeyUse {
  std::string path;    // of an image that needs the key
  std::string reason;  // "encrypted with it" or "source of a replication"
  std::string until;   // words: "until its replication is complete (41.2 % done)"
};

// One step in a key's life.
struct KeyChange {
  enum class Kind { rotate, disable, enable, schedule_deletion, cancel_deletion, grant, revoke };
  Kind kind = Kind::rotate;
  bool force = false;   // disable, schedule_deletion: although images need it
  Timestamp delay = 0;  // schedule_deletion: from now, nanoseconds
  uid_t user = 0;       // grant, revoke
};

struct Space {
  std::uint64_t total = 0, available = 0;  // bytes of the file system below the store
  std::uint64_t nodes = 0;                 // files, directories and links in the store
};

// What decides what a new image becomes.
struct TargetChoice {
  enum class By { policy, plain, key };
  By by = By::policy;        // its key: that of its directory
  std::string key;           // alias or id, by key
  bool fast_create = false;  // it becomes the disk in its source, also where the directory does not say so
};

// What a copy of a whole image into a new one would do.
struct ReplicationPlan {
  bool transforms = false;             // else it would be a clone
  std::string key_before, key_after;   // alias; empty for plain
  std::string format;                  // what the source is a file of, if the copy becomes the disk in it; else empty
  std::uint64_t size = 0;              // bytes of content of the copy
  std::uint64_t bytes_to_transform = 0;  // at most: what is stored of it, holes are not
  std::uint64_t space_needed = 0;        // bytes, at most; without the records of the catalog
  std::uint64_t space_available = 0;     // bytes
  std::vector<Error> refusals;           // every rule that forbids it, in the order in which a copy meets them
};

// How fast blocks are transformed. 0 bytes a second: nothing is known.
struct TransformRate {
  enum class From {
    recent,    // the latest replications in this store
    measured,  // just now, with one thread: reading, decrypting, encrypting; not writing
  };
  double bytes_per_second = 0;
  From from = From::measured;
};

enum class Seek { data, hole };
enum class Allocate { reserve, punch, zero };

struct OpenOptions {
  bool read_only = false;
  unsigned filler_workers = 2;  // 0: nothing is filled in the background (tests)
};

// What a check found wrong, in one place.
struct CheckProblem {
  enum class Kind {
    catalog,   // the file of the records
    journal,   // changes since the last checkpoint
    record,    // records that do not open, or contradict each other
    table,     // what a layer knows of its blocks
    block,     // of an image's content
    file,      // below layers/
    rollback,  // the store is older than its anchor
  };
  Kind kind = Kind::record;
  std::string path;    // of the image or directory, from the store's root; of a file, below the store's directory
  std::string what;    // what is wrong with it
  std::string remedy;  // what a repair does, or what is to be done
  bool repairable = false;
  std::optional<LayerId> layer;  // tables and blocks: which part of which layer
  std::uint64_t offset = 0, size = 0;  // bytes of the content
};
std::string_view name_of(CheckProblem::Kind kind);

// What could not be verified, although nothing says that it is damaged.
struct Unverified {
  std::string path;
  std::string why;
};

struct CheckReport {
  std::vector<CheckProblem> problems;
  std::vector<Unverified> unverified;
  bool complete = false;  // false: some damage kept the check from looking at the rest
  bool repaired = false;  // every problem is repaired
  std::uint64_t directories = 0, images = 0, links = 0, layers = 0, keys = 0;
  std::uint64_t blocks = 0, bytes = 0;  // of content that was read and opened
  std::string anchor;  // says which state of the store this is; empty if it is damaged
};

struct CheckOptions {
  bool read_data = false;  // every block of every layer
  bool repair = false;
  std::string anchor;  // if not empty, that the store is not older than when this was its anchor
};

// Told how a check goes on. A repair changes nothing before it has told of every problem that it changes something for.
class CheckObserver {
 public:
  virtual ~CheckObserver() = default;
  virtual void progress(std::string_view stage, std::uint64_t done, std::uint64_t total) = 0;  // total 0: not known
  virtual void found(const CheckProblem& problem) = 0;
};

class Engine {
 public:
  // `store` is a directory: missing or empty. Errc::exists if it is a store, Errc::not_empty if it is not empty.
  static Status initialize(const std::string& store, const Credential& credential);
  // What opens a store, told without opening it: the commands ask for the right secret and refuse what is no
  // store before they ask for any. Errc::not_found if it is no store; Errc::wrong_version; Errc::corrupt.
  static Result<Credential::Kind> unlocked_by(const std::string& store);
  // Locks, unlocks, verifies, recovers and starts the background work. Not before fork() of a daemon: threads
  // start here. Errc::locked names the process that holds the store.
  static Result<std::unique_ptr<Engine>> open(const std::string& store, const Credential& credential,
                                              const OpenOptions& options = {});
  // Verifies a store that nobody has open, without changing it unless it is to be repaired. Forks, as open() does.
  static Result<CheckReport> check(const std::string& store, const Credential& credential, const CheckOptions& options,
                                   CheckObserver& observer);
  virtual ~Engine() = default;
  // Stops the background work, makes everything durable and frees the store. No other call may run or follow;
  // every OpenFile has been released.
  virtual Status close() = 0;
  virtual void set_observer(Observer* observer) = 0;  // before any traffic; may be null
  virtual const std::string& store_path() const = 0;

  // Names. `name` is one component; "." and ".." are the caller's business. A node's number stays valid until it
  // is unlinked and closed; then it answers Errc::stale.
  virtual Result<Attributes> lookup(Ino parent, std::string_view name) = 0;
  virtual Result<Attributes> get_attributes(Ino ino) = 0;
  // `file`, if given, is the handle the change came through (ftruncate).
  virtual Result<Attributes> set_attributes(Ino ino, const AttributeChange& change, const Caller& caller, OpenFile* file = nullptr) = 0;
  virtual Result<Ino> parent_of(Ino directory) = 0;
  virtual Result<Attributes> make_directory(Ino parent, std::string_view name, mode_t mode, const Caller& caller) = 0;
  virtual Result<Attributes> make_symlink(Ino parent, std::string_view name, std::string_view target, const Caller& caller) = 0;
  virtual Result<std::string> read_symlink(Ino ino) = 0;
  virtual Result<Attributes> link(Ino ino, Ino parent, std::string_view name) = 0;
  virtual Status unlink(Ino parent, std::string_view name) = 0;
  virtual Status remove_directory(Ino parent, std::string_view name) = 0;
  enum class Rename { replace, no_replace, exchange };
  virtual Status rename(Ino parent, std::string_view name, Ino new_parent, std::string_view new_name, Rename how) = 0;
  // Up to `most` entries after `cookie` (0: from the start), without "." and "..".
  virtual Result<std::vector<DirectoryEntry>> read_directory(Ino ino, std::uint64_t cookie, std::size_t most) = 0;

  // Content. `flags` are open(2)'s: access mode, O_TRUNC, O_SYNC/O_DSYNC, O_APPEND is the kernel's.
  struct Created {
    Attributes attributes;
    OpenFilePtr file;
  };
  // A regular file that does not exist yet (mknod + open in one).
  virtual Result<Created> create(Ino parent, std::string_view name, mode_t mode, int flags, const Caller& caller) = 0;
  virtual Result<OpenFilePtr> open_file(Ino ino, int flags, const Caller& caller) = 0;
  // Bytes read: less than asked for only at the end.
  virtual Result<std::size_t> read(OpenFile& file, std::uint64_t offset, ByteSpan out) = 0;
  virtual Result<std::size_t> write(OpenFile& file, std::uint64_t offset, ByteView bytes) = 0;
  virtual Status allocate(OpenFile& file, Allocate what, bool keep_size, std::uint64_t offset, std::uint64_t size) = 0;
  virtual Result<std::uint64_t> seek(OpenFile& file, std::uint64_t offset, Seek what) = 0;
  // Replicates where it can (whole image into a new one, in pieces or at once, O(1)), else copies.
  virtual Result<std::uint64_t> copy_range(OpenFile& in, std::uint64_t offset_in, OpenFile& out, std::uint64_t offset_out,
                                           std::uint64_t size, const Caller& caller) = 0;
  // Gives an image that this handle created, and that has no content yet, another key than its directory's policy, or
  // makes it a disk; the permissions are then as if it had been created so. Errc::not_permitted later than that. A key that cannot be used
  // is a refusal: the handle stays refused, and the image goes at its flush.
  virtual Status choose_target(OpenFile& file, const TargetChoice& choice, const Caller& caller) = 0;
  // Why changes through this handle are refused; nothing if they are not.
  virtual std::optional<Error> refusal_of(OpenFile& file) = 0;
  // Both change nothing. The second takes up to a tenth of a second.
  virtual Result<ReplicationPlan> plan_replication(OpenFile& source, Ino directory, const TargetChoice& choice, const Caller& caller) = 0;
  virtual TransformRate transform_rate(OpenFile& source) = 0;
  virtual Status flush(OpenFile& file) = 0;  // a close(2) of one of its descriptors
  virtual Status sync(OpenFile& file) = 0;
  virtual Status sync_directory(Ino ino) = 0;
  // Every change that any call has acknowledged is durable when it returns; a full disk does not keep it from that.
  virtual Status sync_all() = 0;

  // Extended attributes, whole names ("user.rekeyfs.key").
  enum class SetAttribute { either, create, replace };
  virtual Result<std::string> get_attribute(Ino ino, std::string_view name) = 0;
  // A size that the value will not exceed for some time (growing values; design section 2).
  virtual Result<std::size_t> attribute_size(Ino ino, std::string_view name) = 0;
  virtual Result<std::vector<std::string>> list_attributes(Ino ino) = 0;  // never user.rekeyfs.*
  virtual Status set_attribute(Ino ino, std::string_view name, std::string_view value, SetAttribute how, const Caller& caller) = 0;
  virtual Status remove_attribute(Ino ino, std::string_view name, const Caller& caller) = 0;

  // Facts and commands.
  // Errc::read_only, and why, once a failed sync has made the store read-only: until it is opened again.
  virtual Status health() = 0;
  virtual Result<Space> space() = 0;
  virtual Result<Ino> resolve(std::string_view path) = 0;  // from the root, '/'-separated; symlinks are not followed
  virtual std::string path_of(Ino ino) = 0;  // for messages; "?" in place of what cannot be found
  virtual Result<NodeInfo> info(Ino ino) = 0;
  // Absent: nobody has booted from the image. Errc::invalid: it is no image.
  virtual Result<std::optional<BootReads>> boot_reads(Ino image) = 0;
  // Replications at or below `under`, by path.
  virtual Result<std::vector<Replication>> replications(Ino under) = 0;
  virtual std::vector<Refusal> refusals() = 0;  // the latest, newest first
  virtual Result<std::vector<Event>> events(const EventQuery& query) = 0;  // of the audit log, oldest first
  virtual Result<KeyFacts> create_key(std::string_view alias, const Caller& caller) = 0;
  virtual Result<std::vector<KeyFacts>> list_keys() = 0;
  virtual Result<KeyFacts> find_key(std::string_view alias_or_id) = 0;
  // For the key's owner and root; Errc::not_permitted otherwise. Errc::busy with the list of those who need the key.
  virtual Result<KeyFacts> change_key(std::string_view alias_or_id, const KeyChange& change, const Caller& caller) = 0;
  // The directory's policy changes, and its images, those of subdirectories with the same policy too, are encrypted anew
  // in the background, readable and writable meanwhile. How many. For its owner and root.
  virtual Result<std::uint64_t> rotate_directory(Ino directory, std::string_view alias_or_id, const Caller& caller) = 0;
  virtual Result<std::vector<KeyUse>> key_uses(std::string_view alias_or_id) = 0;
  // Forgets what the first boot from an image read: the next boot is recorded. Clones share it with their source, whose
  // owner it belongs to; for that owner and root. Errc::no_attribute if there is none.
  virtual Status clear_boot_profile(Ino image, const Caller& caller) = 0;
};

}  // namespace rekeyfs
