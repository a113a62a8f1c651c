// InodeRecord: the catalog's record of a directory, an image or a symbolic link, and its encoding.
#pragma once

#include <optional>

#include "engine/base/later_fields.h"
#include "engine/crypto/hash.h"
#include "engine/kms/key_info.h"
#include "engine/types/attributes.h"
#include "engine/types/image_state.h"

namespace rekeyfs::names {

enum class ImageType : std::uint8_t {  // numbers on disk
  none = 0,
  system_disk = 1,
  data_disk = 2,
  full_ecs = 3,
};
std::string_view name_of(ImageType type);  // "" for a value without a name
std::optional<ImageType> image_type_from(std::string_view name);

// Whether an image is a disk as a VM sees it. If so, its content is recorded as raw and never probed, because a guest
// can write another format's header to its disk.
enum class DiskState : std::uint8_t {  // numbers on disk
  as_stored = 0,
  wanted = 1,  // created with fast create on: will be replaced by the disk inside when it has been written
  disk = 2,
};

// Limits of what is stored below a directory; 0: no limit.
struct Quota {
  std::uint64_t bytes = 0;
  std::uint64_t images = 0;
  bool is_set() const { return bytes > 0 || images > 0; }
  friend bool operator==(const Quota&, const Quota&) = default;
};

// The shortest time between the order to delete a key and its deletion, if the root directory says nothing else.
inline constexpr Timestamp kUsualDeletionDelay = Timestamp{7} * 24 * 3600 * 1'000'000'000;

// The policy of a directory for images created in it. "Plain" is a choice and stored like any other.
struct Policy {
  std::optional<kms::KeyId> key;  // absent: plain
  bool fast_create = false;
  ImageType type = ImageType::none;
  bool encrypted_only = false;  // nothing plain comes to be below the directory
  // Whether an image may move between the two directories without being copied.
  bool treats_alike(const Policy& other) const { return key == other.key && fast_create == other.fast_create; }
};

// The origin of a replica; kept as long as the replica exists.
struct Lineage {
  Uuid source{};                       // id of the source image
  std::optional<kms::KeyId> key_before;  // absent: the source was plain
  Timestamp replicated = 0;              // time of the copy
  Timestamp completed = 0;               // when it became independent of its source; 0: not yet
};

// The results of examining an image's content.
struct Findings {
  std::string format;      // "raw", "qcow2", …
  crypto::Digest digest{};  // SHA-256 of the content
};

struct ImageRecord {
  Uuid id{};
  LayerId layer;  // top layer
  ImageState state = ImageState::normal;  // "creating" is never stored: it ends with the process
  ImageType type = ImageType::none;
  bool is_protected = false;
  DiskState disk = DiskState::as_stored;
  std::optional<Lineage> lineage;
  std::optional<Findings> findings;  // absent: not examined yet, or written since
  std::string error;  // why `state` is error, and what to do
};

struct InodeRecord {
  NodeKind kind = NodeKind::image;
  mode_t permissions = 0;
  uid_t uid = 0;
  gid_t gid = 0;
  std::uint32_t links = 1;
  Timestamp accessed = 0, modified = 0, changed = 0;
  Ino parent;        // last known parent, for paths in messages; exact for directories
  std::string name;  // name in `parent`
  Policy policy;       // for a directory
  Quota quota;         // for a directory
  std::optional<Timestamp> min_deletion_delay;  // for the root directory; absent: kUsualDeletionDelay
  ImageRecord image;   // for an image
  std::string target;  // for a symbolic link
  LaterFields later;

  std::string encode() const;
  // Errc::wrong_version if this program does not know the record's layout.
  static Result<InodeRecord> decode(std::string_view bytes);
};

}  // namespace rekeyfs::names
