// StoreUser: an open store with user operations by path, and what users see of it. For tests that compare whole stores.
#pragma once

#include <fcntl.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <thread>

#include "tests/support/store_copies.h"

namespace rekeyfs::test {

// What users see of a store, except what changes by itself.
struct StoreState {
  std::map<std::string, std::string> facts;     // of each path and each key
  std::map<std::string, std::string> contents;  // of each image
  friend bool operator==(const StoreState&, const StoreState&) = default;

  // Whether this can be the state after a call from `before` to `after` was interrupted: names either all old or all
  // new, and each block of content old or new.
  bool is_between(const StoreState& old, const StoreState& next) const {
    if (facts != old.facts && facts != next.facts) return false;
    return std::all_of(contents.begin(), contents.end(), [&](const auto& image) {
      const auto before = old.contents.find(image.first), after = next.contents.find(image.first);
      const std::string none;
      return is_mixture(image.second, before == old.contents.end() ? none : before->second, after == next.contents.end() ? none : after->second);
    });
  }

 private:
  static bool is_mixture(const std::string& got, const std::string& old, const std::string& next) {
    constexpr std::size_t kBlock = 16384;
    if (got.size() != old.size() && got.size() != next.size()) return false;
    for (std::size_t at = 0; at < got.size(); at += kBlock) {
      const std::string block = got.substr(at, kBlock);
      auto is_of = [&](const std::string& content) {
        std::string same = at < content.size() ? content.substr(at, block.size()) : "";
        same.resize(block.size());
        return same == block;
      };
      if (!is_of(old) && !is_of(next)) return false;
    }
    return true;
  }
};

inline std::string difference(const StoreState& left, const StoreState& right) {
  std::string text;
  auto compare = [&](const auto& a, const auto& b, bool show) {
    for (const auto& [name, value] : a) {
      const auto found = b.find(name);
      if (found != b.end() && found->second == value) continue;
      text += "\n  " + name + ": " + (show ? value : std::to_string(value.size()) + " bytes") + " / ";
      text += found == b.end() ? "missing" : show ? found->second : "other content";
    }
  };
  compare(left.facts, right.facts, true);
  compare(left.contents, right.contents, false);
  for (const auto& [name, value] : right.facts)
    if (!left.facts.contains(name)) text += "\n  " + name + ": missing / " + value;
  return text;
}

// An open store with user operations by path.
class StoreUser {
 public:
  // Modification times up to this one were set explicitly and are compared; later ones depend on the run.
  static constexpr Timestamp kLongAgo = 1'000'000'000'000'000'000;

  static Result<std::unique_ptr<StoreUser>> open(const std::string& store, unsigned filler_workers = 1) {
    OpenOptions options;
    options.filler_workers = filler_workers;
    RK_TRY_ASSIGN(std::unique_ptr<Engine> engine, Engine::open(store, test_credential(), options));
    return std::unique_ptr<StoreUser>(new StoreUser(std::move(engine)));
  }
  Status close() {
    files_.clear();
    return engine_->close();
  }
  Engine& engine() { return *engine_; }
  Result<Ino> ino(const std::string& path) { return engine_->names().resolve(path); }

  Status create(const std::string& path, int flags = O_RDWR) {
    RK_TRY_ASSIGN(const Ino parent, directory_of(path));
    RK_TRY_ASSIGN(Files::Created created, engine_->files().create(parent, name_of_path(path), 0600, flags, kOperator));
    files_[path] = std::move(created.file);
    return {};
  }
  Status write(const std::string& path, std::uint64_t offset, const std::string& bytes) {
    RK_TRY_ASSIGN(OpenFile* const file, this->file(path));
    RK_TRY_ASSIGN(const std::size_t written, engine_->files().write(*file, offset, as_bytes(bytes)));
    return written == bytes.size() ? Status{} : fail(Errc::io, "a short write");
  }
  Status read(const std::string& path, std::uint64_t offset, std::size_t size) {
    RK_TRY_ASSIGN(OpenFile* const file, this->file(path));
    std::string bytes(size, '?');
    RK_TRY(engine_->files().read(*file, offset, {reinterpret_cast<std::byte*>(bytes.data()), size}));
    return {};
  }
  Status zero(const std::string& path, std::uint64_t offset, std::uint64_t size) {
    RK_TRY_ASSIGN(OpenFile* const file, this->file(path));
    return engine_->files().allocate(*file, Allocate::punch, true, offset, size);
  }
  Status sync(const std::string& path) {
    RK_TRY_ASSIGN(OpenFile* const file, this->file(path));
    return engine_->files().sync(*file);
  }
  Status close_file(const std::string& path) {
    RK_TRY_ASSIGN(OpenFile* const file, this->file(path));
    const Status flushed = engine_->files().flush(*file);
    files_.erase(path);
    return flushed;
  }
  // Copies like cp, after the target was created.
  Status copy(const std::string& from, const std::string& to) {
    RK_TRY_ASSIGN(OpenFile* const in, file(from));
    RK_TRY_ASSIGN(OpenFile* const out, file(to));
    RK_TRY(engine_->files().copy_range(*in, 0, *out, 0, std::uint64_t{1} << 40, kOperator));
    return {};
  }
  Status change(const std::string& path, const AttributeChange& change) {
    RK_TRY_ASSIGN(const Ino node, ino(path));
    RK_TRY(engine_->names().setattr(node, change, kOperator));
    return {};
  }
  Status truncate(const std::string& path, std::uint64_t size) {
    AttributeChange wanted;
    wanted.size = size;
    return change(path, wanted);
  }
  Status set(const std::string& path, const std::string& name, const std::string& value) {
    RK_TRY_ASSIGN(const Ino node, ino(path));
    return engine_->names().setxattr(node, name, value, XattrMode::either, kOperator);
  }
  Status make_directory(const std::string& path) {
    RK_TRY_ASSIGN(const Ino parent, directory_of(path));
    RK_TRY(engine_->names().make_directory(parent, name_of_path(path), 0755, kOperator));
    return {};
  }
  Status make_symlink(const std::string& path, const std::string& target) {
    RK_TRY_ASSIGN(const Ino parent, directory_of(path));
    RK_TRY(engine_->names().make_symlink(parent, name_of_path(path), target, kOperator));
    return {};
  }
  Status link(const std::string& from, const std::string& to) {
    RK_TRY_ASSIGN(const Ino node, ino(from));
    RK_TRY_ASSIGN(const Ino parent, directory_of(to));
    RK_TRY(engine_->names().link(node, parent, name_of_path(to)));
    return {};
  }
  Status unlink(const std::string& path) {
    RK_TRY_ASSIGN(const Ino parent, directory_of(path));
    return engine_->names().unlink(parent, name_of_path(path));
  }
  Status remove_directory(const std::string& path) {
    RK_TRY_ASSIGN(const Ino parent, directory_of(path));
    return engine_->names().remove_directory(parent, name_of_path(path));
  }
  Status rename(const std::string& from, const std::string& to, RenameMode how = RenameMode::replace) {
    RK_TRY_ASSIGN(const Ino parent, directory_of(from));
    RK_TRY_ASSIGN(const Ino new_parent, directory_of(to));
    return engine_->names().rename(parent, name_of_path(from), new_parent, name_of_path(to), how, kOperator);
  }
  Status create_key(const std::string& alias) {
    RK_TRY(engine_->keys().create(alias, kOperator));
    return {};
  }
  Status change_key(const std::string& alias, KeyChange::Kind kind, bool declassify = false) {
    KeyChange change;
    change.kind = kind;
    change.force = kind == KeyChange::Kind::disable;
    change.delay = 1'000'000'000'000'000;
    change.user = 1000;
    change.declassify = declassify;
    RK_TRY(engine_->keys().change(alias, change, kOperator));
    return {};
  }
  Status rotate(const std::string& directory, const std::string& key) {
    RK_TRY_ASSIGN(const Ino node, ino(directory));
    RK_TRY(engine_->keys().rotate_directory(node, key, kOperator));
    return {};
  }

  Result<StoreState> look() {
    StoreState state;
    RK_TRY(look_below(kRootIno, "", state));
    RK_TRY_ASSIGN(const std::vector<KeyFacts> keys, engine_->keys().list());
    for (const KeyFacts& key : keys) {
      std::string& text = state.facts["key " + key.alias] = key.state + ", version " + std::to_string(key.version);
      for (const uid_t user : key.grantees) text += ", granted to " + std::to_string(user);
      for (const uid_t user : key.declassifiers) text += ", declassified by " + std::to_string(user);
    }
    return state;
  }

  // Waits for all background work: replications, rotations of directories, new versions of keys.
  Status settle() {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    for (;;) {
      RK_TRY_ASSIGN(const std::string left, unsettled(kRootIno, ""));
      if (left.empty()) return {};
      if (std::chrono::steady_clock::now() > deadline) return fail(Errc::busy, "does not come to an end: " + left);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

 private:
  explicit StoreUser(std::unique_ptr<Engine> engine) : engine_(std::move(engine)) {}

  static std::string name_of_path(const std::string& path) { return path.substr(path.rfind('/') + 1); }
  Result<Ino> directory_of(const std::string& path) {
    const std::size_t slash = path.rfind('/');
    return slash == std::string::npos ? Result<Ino>(kRootIno) : ino(path.substr(0, slash));
  }
  Result<OpenFile*> file(const std::string& path) {
    if (const auto found = files_.find(path); found != files_.end()) return found->second.get();
    RK_TRY_ASSIGN(const Ino node, ino(path));
    RK_TRY_ASSIGN(files_[path], engine_->files().open(node, O_RDWR, kOperator));
    return files_[path].get();
  }
  Result<std::string> content_of(Ino node, std::uint64_t size) {
    RK_TRY_ASSIGN(const OpenFilePtr file, engine_->files().open(node, O_RDONLY, kOperator));
    std::string bytes(size + 1, '?');
    RK_TRY_ASSIGN(const std::size_t got, engine_->files().read(*file, 0, {reinterpret_cast<std::byte*>(bytes.data()), bytes.size()}));
    bytes.resize(got);
    return bytes;
  }
  std::string key_of(Ino node) {
    const auto key = engine_->names().getxattr(node, "user.rekeyfs.key");
    return key ? *key : "";
  }
  bool is_usable(const std::string& key) {
    const auto facts = engine_->keys().find(key);
    return key.empty() || (facts && facts->state == "enabled");
  }

  Status look_below(Ino directory, const std::string& path, StoreState& state) {
    RK_TRY_ASSIGN(const std::vector<DirectoryEntry> entries, engine_->names().read_directory(directory, 0, 1000));
    for (const DirectoryEntry& entry : entries) {
      const std::string name = path + entry.name;
      RK_TRY_ASSIGN(const Attributes attributes, engine_->names().getattr(entry.ino));
      std::string& text = state.facts[name] = "kind " + std::to_string(static_cast<int>(entry.kind));
      text += " mode " + std::to_string(attributes.permissions) + " links " + std::to_string(attributes.links);
      if (attributes.modified <= kLongAgo) text += " modified " + std::to_string(attributes.modified);
      RK_TRY_ASSIGN(const std::vector<std::string> listed, engine_->names().listxattr(entry.ino));
      for (const std::string& attribute : listed) {
        RK_TRY_ASSIGN(const std::string value, engine_->names().getxattr(entry.ino, attribute));
        text += " " + attribute + "=" + value;
      }
      if (entry.kind == NodeKind::symlink) {
        RK_TRY_ASSIGN(const std::string target, engine_->names().read_symlink(entry.ino));
        text += " to " + target;
      } else if (entry.kind == NodeKind::directory) {
        text += " policy " + key_of(entry.ino);
        RK_TRY(look_below(entry.ino, name + "/", state));
      } else if (is_usable(key_of(entry.ino))) {
        RK_TRY_ASSIGN(state.contents[name], content_of(entry.ino, attributes.size));
      }
    }
    return {};
  }

  // An image that is not in its final state; empty if there is none.
  Result<std::string> unsettled(Ino directory, const std::string& path) {
    const std::string key = key_of(directory);
    if (!is_usable(key)) return "";
    RK_TRY_ASSIGN(const std::vector<DirectoryEntry> entries, engine_->names().read_directory(directory, 0, 1000));
    for (const DirectoryEntry& entry : entries) {
      const std::string name = path + entry.name;
      if (entry.kind == NodeKind::directory) {
        RK_TRY_ASSIGN(const std::string below, unsettled(entry.ino, name + "/"));
        if (!below.empty()) return below;
      }
      if (entry.kind != NodeKind::image) continue;
      RK_TRY_ASSIGN(const std::string status, engine_->names().getxattr(entry.ino, "user.rekeyfs.status"));
      if (status == "replicating" || status == "error") return name + " is " + status;
      if (key_of(entry.ino) != key) return name + " has the key " + key_of(entry.ino);
      RK_TRY_ASSIGN(const NodeInfo info, engine_->reports().info(entry.ino));
      for (const LayerInfo& layer : info.layers) {
        const auto facts = engine_->keys().find(layer.key);
        if (!layer.key.empty() && facts && layer.key_version != facts->version) return name + " has an old version of its key";
      }
    }
    return "";
  }

  std::unique_ptr<Engine> engine_;
  std::map<std::string, OpenFilePtr> files_;  // key: path used to open the file
};

}  // namespace rekeyfs::test
