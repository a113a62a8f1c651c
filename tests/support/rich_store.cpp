#include "tests/support/rich_store.h"

#include <fcntl.h>

#include <algorithm>
#include <stdexcept>

namespace rekeyfs::test {
namespace {

constexpr std::size_t kLine = 64;
constexpr std::size_t kMinBoot = 1 << 20;  // minimum bytes of a boot profile
const Caller kRoot{0, 0, true};

template <typename T>
T need(Result<T> result, const std::string& doing) {
  if (!result) throw std::runtime_error(doing + ": " + error_text(result));
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

std::string parent_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}
std::string name_in(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}

std::string attribute_or_empty(Engine& engine, Ino ino, const std::string& name) {
  const auto value = engine.names().getxattr(ino, "user.rekeyfs." + name);
  return value ? *value : "";
}

void read_content(Engine& engine, Ino ino, SeenNode& node) {
  node.content.assign(node.size, '\0');
  const auto file = engine.files().open(ino, O_RDONLY, kRoot);
  for (std::uint64_t at = 0; at < node.size; at += kRichBlock) {
    const std::size_t size = std::min<std::uint64_t>(kRichBlock, node.size - at);
    const ByteSpan out{reinterpret_cast<std::byte*>(&node.content[at]), size};
    const auto got = file ? engine.files().read(**file, at, out) : fail(file.error());
    if (got && *got == size) continue;
    std::fill(out.begin(), out.end(), std::byte{0});
    node.unreadable.insert(at / kRichBlock);
    if (got || (got.error().code != Errc::corrupt && got.error().code != Errc::io)) node.wrong_error = error_text(got);
  }
}

SeenNode look_at_node(Engine& engine, Ino ino, bool with_content) {
  SeenNode node;
  const auto attributes = engine.names().getattr(ino);
  if (!attributes) {
    node.error = error_text(attributes);
    return node;
  }
  node.kind = attributes->kind;
  node.permissions = attributes->permissions;
  if (node.kind == NodeKind::symlink) {
    const auto target = engine.names().read_symlink(ino);
    if (target)
      node.target = *target;
    else
      node.error = error_text(target);
  } else {
    const auto encryption = engine.names().getxattr(ino, "user.rekeyfs.encryption");
    if (encryption)
      node.encryption = *encryption;
    else
      node.error = error_text(encryption);
    node.key = attribute_or_empty(engine, ino, "key");
    node.id = attribute_or_empty(engine, ino, "id");
  }
  if (const auto names = engine.names().listxattr(ino))
    for (const std::string& name : *names)
      if (const auto value = engine.names().getxattr(ino, name)) node.attributes[name] = *value;
  if (node.kind == NodeKind::image) {
    node.size = attributes->size;
    if (const auto boot = engine.files().boot_reads(ino); boot && *boot) node.boot_bytes = (*boot)->bytes;
    if (with_content) read_content(engine, ino, node);
  }
  return node;
}

void look_below(Engine& engine, Ino directory, const std::string& path, bool with_content, Seen& seen) {
  constexpr std::size_t kMany = 1000;
  const auto entries = engine.names().read_directory(directory, 0, kMany);
  if (!entries) {
    seen[path].error = error_text(entries);
    return;
  }
  for (const DirectoryEntry& entry : *entries) {
    const std::string child = path.empty() ? entry.name : path + "/" + entry.name;
    seen[child] = look_at_node(engine, entry.ino, with_content);
    if (entry.kind == NodeKind::directory) look_below(engine, entry.ino, child, with_content, seen);
  }
}

}  // namespace

Seen look_at(Engine& engine, bool with_content) {
  Seen seen;
  seen[""] = look_at_node(engine, kRootIno, with_content);
  look_below(engine, kRootIno, "", with_content, seen);
  return seen;
}

std::string rich_content(const std::string& whose, std::size_t size, bool secret) {
  std::string content;
  while (content.size() < size) {
    std::string line =
        (secret ? std::string(kSecretMarker) + " " : "") + whose + " at " + std::to_string(content.size());
    line.resize(kLine - 1, '.');
    content += line + "\n";
  }
  content.resize(size);
  return content;
}

RichStore::RichStore(std::string directory) : directory_(std::move(directory)) {
  need(Engine::initialize(directory_, test_credential()), "make the store");
  first_mount();
  second_mount();
  last_mount();
}

void RichStore::open() {
  OpenOptions options;
  options.filler_workers = 0;  // replications stay in progress
  engine_ = need(Engine::open(directory_, test_credential(), options), "open the store");
}

void RichStore::close_and_keep_copy() {
  need(engine_->close(), "close the store");
  engine_.reset();
  older_.push_back(directory_ + "." + std::to_string(older_.size()));
  copy_as_killed(directory_, older_.back());
}

void RichStore::first_mount() {
  open();
  for (const char* alias : {"tenant", "other"}) need(engine_->keys().create(alias, kRoot), "create a key");
  make_directory("vault", "tenant");
  make_directory("other", "other");
  make_directory("shelf");
  create("plain.img", 2 * kRichBlock + 1000, false);
  create("wide.img", 300, false);
  write("wide.img", 200 * kRichBlock, rich_content("wide.img behind", 500, false));
  create("gone.img", 700, false);
  create("vault/secret.img", kRichBlock + 700, true);
  create("vault/alone.img", 900, true);
  make_directory("fast");
  set_attribute("fast", "user.rekeyfs.fast_create", "1");
  create("fast/disk.img", 300, false);
  resize("fast/disk.img", kMinBoot);
  boot("fast/disk.img");
  need(engine_->names().make_symlink(kRootIno, "link", "vault/secret.img", kRoot), "make a link");
  set_attribute("plain.img", "user.comment", "kept");
  set_attribute("vault", "user.owner", "somebody");
  close_and_keep_copy();
}

// Overwrites data of the first mount, so that older blocks and table pages exist for attacks.
void RichStore::second_mount() {
  open();
  KeyChange rotate;
  need(engine_->keys().change("tenant", rotate, kRoot), "rotate a key");
  write("plain.img", kRichBlock, rich_content("plain.img again", 100, false));
  write("wide.img", 200 * kRichBlock, rich_content("wide.img once more", 400, false));
  write("vault/alone.img", 0, rich_content("vault/alone.img again", 200, true));
  copy("vault/secret.img", "other/replica.img");
  copy("vault/secret.img", "vault/clone.img");
  write("vault/clone.img", kRichBlock, rich_content("vault/clone.img changed", 300, true));
  set_attribute("plain.img", "user.comment", "kept, and changed");
  close_and_keep_copy();
}

void RichStore::last_mount() {
  open();
  in_last_mount_ = true;
  note();
  write("plain.img", 10, rich_content("plain.img in the journal", 50, false));
  set_attribute("shelf", "user.color", "red");
  create("vault/late.img", 800, true);
  need(engine_->files().sync(*open_image("vault/late.img")), "sync");
  rename("plain.img", "shelf/moved.img");
  make_directory("new", "tenant");
  write("vault/secret.img", kRichBlock, rich_content("vault/secret.img after its copies", 60, true));
  need(engine_->names().unlink(kRootIno, "gone.img"), "unlink");
  contents_.erase("gone.img");
  note();
  resize("wide.img", 100 * kRichBlock);
  write("vault/alone.img", 100, rich_content("vault/alone.img at the end", 70, true));
  const std::string killed = directory_ + ".killed";
  copy_as_killed(directory_, killed);
  need(engine_->close(), "close the store");
  engine_.reset();
  std::filesystem::remove_all(directory_);
  std::filesystem::rename(killed, directory_);
}

// --- steps -----------------------------------------------------------------------------------------------------

void RichStore::note() {
  if (!in_last_mount_) return;
  Seen seen = look_at(*engine_, false);  // reading would fill the replica
  for (auto& [path, node] : seen) {
    if (!node.error.empty()) throw std::runtime_error(path + ": " + node.error);
    if (node.kind != NodeKind::image) continue;
    node.content = contents_.at(path);
    if (node.content.size() != node.size) throw std::runtime_error(path + " has another size than was written");
    inodes_[node.id] = ino_of(path).value();
    for (const LayerInfo& layer : need(engine_->reports().info(ino_of(path)), "look at " + path).layers)
      layers_[node.id].insert(layer.id.value());
  }
  states_.push_back(std::move(seen));
}

Ino RichStore::ino_of(const std::string& path) {
  return need(engine_->names().resolve(path), "find " + path);
}
OpenFilePtr RichStore::open_image(const std::string& path) {
  return need(engine_->files().open(ino_of(path), O_RDWR, kRoot), "open " + path);
}

void RichStore::make_directory(const std::string& path, const std::string& key) {
  const Ino ino =
      need(engine_->names().make_directory(ino_of(parent_of(path)), name_in(path), 0755, kRoot), "make " + path).ino;
  note();
  if (key.empty()) return;
  need(engine_->names().setxattr(ino, "user.rekeyfs.key", key, XattrMode::either, kRoot),
       "give " + path + " a key");
  note();
}

void RichStore::create(const std::string& path, std::size_t size, bool secret) {
  {
    const auto created =
        need(engine_->files().create(ino_of(parent_of(path)), name_in(path), 0600, O_RDWR, kRoot), "create " + path);
    contents_[path] = "";
    note();
    const std::string bytes = rich_content(path, size, secret);
    need(engine_->files().write(*created.file, 0, as_bytes(bytes)), "write " + path);
    contents_[path] = bytes;
    note();
    need(engine_->files().flush(*created.file), "close " + path);
  }
  note();
}

void RichStore::write(const std::string& path, std::uint64_t offset, const std::string& bytes) {
  {
    const OpenFilePtr file = open_image(path);
    need(engine_->files().write(*file, offset, as_bytes(bytes)), "write " + path);
    std::string& content = contents_.at(path);
    content.resize(std::max<std::size_t>(content.size(), offset + bytes.size()), '\0');
    content.replace(offset, bytes.size(), bytes);
    note();
    need(engine_->files().flush(*file), "close " + path);
  }
  note();
}

void RichStore::boot(const std::string& path) {
  std::vector<std::byte> bytes(kMinBoot);
  need(engine_->files().read(*open_image(path), 0, bytes), "boot from " + path);
}

void RichStore::copy(const std::string& from, const std::string& to) {
  const OpenFilePtr source = need(engine_->files().open(ino_of(from), O_RDONLY, kRoot), "open " + from);
  const auto target = need(engine_->files().create(ino_of(parent_of(to)), name_in(to), 0600, O_RDWR, kRoot), "create " + to);
  const std::uint64_t size = contents_.at(from).size();
  const auto copied = need(engine_->files().copy_range(*source, 0, *target.file, 0, size, kRoot), "copy to " + to);
  if (copied != size) throw std::runtime_error(to + " was not copied at once");
  contents_[to] = contents_.at(from);
  need(engine_->files().flush(*target.file), "close " + to);
  note();
}

void RichStore::resize(const std::string& path, std::uint64_t size) {
  AttributeChange change;
  change.size = size;
  need(engine_->names().setattr(ino_of(path), change, kRoot), "resize " + path);
  contents_.at(path).resize(size, '\0');
  note();
}

void RichStore::set_attribute(const std::string& path, const std::string& name, const std::string& value) {
  need(engine_->names().setxattr(ino_of(path), name, value, XattrMode::either, kRoot),
       "set an attribute of " + path);
  note();
}

void RichStore::rename(const std::string& from, const std::string& to) {
  need(engine_->names().rename(ino_of(parent_of(from)), name_in(from), ino_of(parent_of(to)), name_in(to),
                       RenameMode::replace, kRoot),
       "rename " + from);
  contents_[to] = contents_.at(from);
  contents_.erase(from);
  note();
}

}  // namespace rekeyfs::test
