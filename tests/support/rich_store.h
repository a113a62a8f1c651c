// RichStore: a small store with examples of everything, and what a reader must find in it after each step.
//
// For tests that damage stores and for the golden stores (tests/golden). The content is the same each time; ids, keys
// and salts are random. Made with the engine only. Throws std::runtime_error if the engine refuses a call.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/support/store_copies.h"

namespace rekeyfs::test {

inline constexpr std::size_t kRichBlock = 16384;
// Occurs every 64 bytes in each encrypted image, and nowhere else.
inline constexpr std::string_view kSecretMarker = "what-only-keys-may-open";

// What a reader sees of one node.
struct SeenNode {
  NodeKind kind = NodeKind::image;
  mode_t permissions = 0;
  std::string id;                                 // for an image, whose name may change
  std::string encryption;                         // "kms", "none"; empty for a link
  std::string key;                                // alias of the image's key or of the directory's policy; empty: none
  std::string target;                             // for a link
  std::uint64_t size = 0;                         // bytes
  std::string content;                            // for an image; unreadable blocks are zeros
  std::map<std::string, std::string> attributes;  // user.* attributes, without user.rekeyfs.*
  std::uint64_t boot_bytes = 0;                   // size of the boot profile

  std::string error;                   // if the node itself cannot be examined; all other members are then unset
  std::set<std::uint64_t> unreadable;  // block indexes
  std::string wrong_error;             // an error of a read that users would not see as EIO
};
using Seen = std::map<std::string, SeenNode>;  // key: path; "" for the root

// Examines everything below the root. Without `with_content` no image is read.
Seen look_at(Engine& engine, bool with_content = true);

class RichStore {
 public:
  // Creates the store in `directory`, which must not exist, and closes it. Copies of the store after each earlier mount
  // are in `directory`.0 and so on. The last mount was killed: its changes are in the journal only, except what it
  // synced half-way.
  explicit RichStore(std::string directory);

  const std::string& directory() const { return directory_; }
  const std::vector<std::string>& older() const { return older_; }
  // The expected state after each step of the last mount; the first is as mounted, the last as killed.
  const std::vector<Seen>& states() const { return states_; }
  const Seen& last() const { return states_.back(); }
  // All layers that an image reads from, at any time of the last mount; key: id of the image.
  const std::map<std::string, std::set<std::uint64_t>>& layers() const { return layers_; }
  const std::map<std::string, std::uint64_t>& inodes() const { return inodes_; }  // key: id of the image

 private:
  void open();
  void close_and_keep_copy();
  void first_mount();
  void second_mount();
  void last_mount();

  void note();
  Ino ino_of(const std::string& path);
  OpenFilePtr open_image(const std::string& path);
  void make_directory(const std::string& path, const std::string& key = "");
  void create(const std::string& path, std::size_t size, bool secret);
  void write(const std::string& path, std::uint64_t offset, const std::string& bytes);
  void boot(const std::string& path);
  void copy(const std::string& from, const std::string& to);
  void resize(const std::string& path, std::uint64_t size);
  void set_attribute(const std::string& path, const std::string& name, const std::string& value);
  void rename(const std::string& from, const std::string& to);

  const std::string directory_;
  std::unique_ptr<Engine> engine_;
  std::vector<std::string> older_;
  std::map<std::string, std::string> contents_;  // written content; key: path
  std::vector<Seen> states_;
  std::map<std::string, std::set<std::uint64_t>> layers_;
  std::map<std::string, std::uint64_t> inodes_;
  bool in_last_mount_ = false;
};

// `size` bytes of text lines that name their image and offset; with the marker if the image is encrypted.
std::string rich_content(const std::string& whose, std::size_t size, bool secret);

}  // namespace rekeyfs::test
