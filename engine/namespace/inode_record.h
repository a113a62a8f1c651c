// InodeRecord: what the catalog keeps of a directory, an image or a symbolic link, and its bytes.
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
std::string_view name_of(ImageType type);  // "" for none
std::optional<ImageType> image_type_from(std::string_view name);

// Whether an image is a disk as a VM sees it: then its content is raw by record and never probed, for a guest can write
// another format's header into its disk.
enum class DiskState : std::uint8_t {  // numbers on disk
  as_stored = 0,
  wanted = 1,  // made where fast create is on: the disk inside takes its place when it has been written
  disk = 2,
};

// What a directory makes of images created in it. "Plain" is a decision, kept like any other.
struct Policy {
  std::optional<kms::KeyId> key;  // absent: plain
  bool fast_create = false;
  ImageType type = ImageType::none;
  // Whether an image may move between the two as it is.
  bool treats_alike(const Policy& other) const { return key == other.key && fast_create == other.fast_create; }
};

// Where a replica came from; kept for its life.
struct Lineage {
  Uuid source{};                       // the source image's id
  std::optional<kms::KeyId> key_before;  // absent: it was plain
  Timestamp replicated = 0;              // when it was copied
  Timestamp completed = 0;               // when it needed its source no more; 0: it still does
};

// What initialisation finds out about an image's content.
struct Findings {
  std::string format;      // "raw", "qcow2", …
  crypto::Digest digest{};  // SHA-256 of the bytes a reader sees
};

struct ImageRecord {
  Uuid id{};
  LayerId layer;  // the top one
  ImageState state = ImageState::normal;  // "creating" is never stored: it ends with the process
  ImageType type = ImageType::none;
  bool is_protected = false;
  DiskState disk = DiskState::as_stored;
  std::optional<Lineage> lineage;
  std::optional<Findings> findings;  // absent: not determined yet, or written since
  std::string error;  // why `state` is error, and what to do
};

struct InodeRecord {
  NodeKind kind = NodeKind::image;
  mode_t permissions = 0;
  uid_t uid = 0;
  gid_t gid = 0;
  std::uint32_t links = 1;
  Timestamp accessed = 0, modified = 0, changed = 0;
  Ino parent;        // where it was last seen, for paths in messages; exact for directories
  std::string name;  // there
  Policy policy;       // of a directory
  ImageRecord image;   // of an image
  std::string target;  // of a symbolic link
  LaterFields later;

  std::string encode() const;
  // Errc::wrong_version for one of a layout that this program does not know.
  static Result<InodeRecord> decode(std::string_view bytes);
};

}  // namespace rekeyfs::names
