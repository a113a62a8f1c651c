// RichStore: a small store with some of everything, and what a reader must find in it at each step.
//
// For tests that damage stores, and for the golden stores (tests/golden). What is in it is the same each time; ids,
// keys and salts are random. Made through the engine alone. Throws std::runtime_error if the engine refuses anything.
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
// In each encrypted image every 64 bytes, and in nothing else.
inline constexpr std::string_view kSecretMarker = "what-only-keys-may-open";

// What a reader sees of one node.
struct SeenNode {
  NodeKind kind = NodeKind::image;
  mode_t permissions = 0;
  std::string id;                                 // of an image; names may change
  std::string encryption;                         // "kms", "none"; empty for a link
  std::string key;                                // alias of an image's key or of a directory's policy; empty: none
  std::string target;                             // of a link
  std::uint64_t size = 0;                         // bytes
  std::string content;                            // of an image; blocks that cannot be read are zeros
  std::map<std::string, std::string> attributes;  // user.*, without ours
  std::uint64_t boot_bytes = 0;                   // of the boot profile

  std::string error;                   // if the node itself cannot be looked at: then the rest says nothing
  std::set<std::uint64_t> unreadable;  // blocks
  std::string wrong_error;             // of a read: one that a user does not see as EIO
};
using Seen = std::map<std::string, SeenNode>;  // by path, the root is ""

// Everything below the root. `with_content`: else no image is read.
Seen look_at(Engine& engine, bool with_content = true);

class RichStore {
 public:
  // Makes it in `directory`, which must not exist, and leaves it closed. A copy of the store after each of its earlier
  // mounts is beside it, as `directory`.0 and so on. The last mount was killed: its changes are in the journal only,
  // but what it synced in the middle.
  explicit RichStore(std::string directory);

  const std::string& directory() const { return directory_; }
  const std::vector<std::string>& older() const { return older_; }
  // What must be found after each step of the last mount; the first is as it was mounted, the last as it was killed.
  const std::vector<Seen>& states() const { return states_; }
  const Seen& last() const { return states_.back(); }
  // Layers that an image reads from, by its id: at some moment of the last mount.
  const std::map<std::string, std::set<std::uint64_t>>& layers() const { return layers_; }
  const std::map<std::string, std::uint64_t>& inodes() const { return inodes_; }  // by the image's id

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
  std::map<std::string, std::string> contents_;  // by path: what was written
  std::vector<Seen> states_;
  std::map<std::string, std::set<std::uint64_t>> layers_;
  std::map<std::string, std::uint64_t> inodes_;
  bool in_last_mount_ = false;
};

// `size` bytes of lines that say whose they are and where; with the marker if they are to be encrypted.
std::string rich_content(const std::string& whose, std::size_t size, bool secret);

}  // namespace rekeyfs::test
