// The facade: puts the parts of an open store together and forwards to them.
#include "engine/make_engine.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "engine/audit/audit_log.h"
#include "engine/boot/boot_profiles.h"
#include "engine/check/check.h"
#include "engine/images/attributes.h"
#include "engine/images/images.h"
#include "engine/images/prefetcher.h"
#include "engine/images/rotator.h"
#include "engine/keys/key_life.h"
#include "engine/replication/copy_on_read.h"
#include "engine/replication/filler.h"
#include "engine/store/store.h"

namespace rekeyfs {

using images::kOurPrefix;
using names::InodeRecord;
using names::Tree;

std::string_view name_of(ImageState state) {
  switch (state) {
    case ImageState::creating: return "creating";
    case ImageState::normal_uninitialized: return "normal-uninitialized";
    case ImageState::normal: return "normal";
    case ImageState::replicating: return "replicating";
    case ImageState::error: return "error";
  }
  return "unknown";
}

std::string_view name_of(CheckProblem::Kind kind) {
  switch (kind) {
    case CheckProblem::Kind::catalog: return "catalog";
    case CheckProblem::Kind::journal: return "journal";
    case CheckProblem::Kind::record: return "record";
    case CheckProblem::Kind::table: return "table";
    case CheckProblem::Kind::block: return "block";
    case CheckProblem::Kind::file: return "file";
    case CheckProblem::Kind::rollback: return "rollback";
  }
  return "unknown";
}

std::string_view name_of(EventKind kind) {
  switch (kind) {
    case EventKind::replication_asked: return "replication-asked";
    case EventKind::replication_completed: return "replication-completed";
    case EventKind::replication_failed: return "replication-failed";
    case EventKind::replication_recovered: return "replication-recovered";
    case EventKind::cloned: return "cloned";
    case EventKind::refused: return "refused";
    case EventKind::key_created: return "key-created";
    case EventKind::key_rotated: return "key-rotated";
    case EventKind::key_disabled: return "key-disabled";
    case EventKind::key_enabled: return "key-enabled";
    case EventKind::key_deletion_asked: return "key-deletion-asked";
    case EventKind::key_deletion_cancelled: return "key-deletion-cancelled";
    case EventKind::key_deleted: return "key-deleted";
    case EventKind::key_granted: return "key-granted";
    case EventKind::key_revoked: return "key-revoked";
    case EventKind::rotation_asked: return "rotation-asked";
  }
  return "";
}

namespace {

constexpr std::size_t kMostAttributeName = 255;
constexpr std::size_t kMostAttributeValue = 65536;
constexpr std::size_t kSmallValue = 1024;      // one that may be set on a full disk
constexpr std::uint64_t kMostAdded = 32u << 10;  // bytes that a new name needs, in the journal, the catalog and for files
constexpr std::size_t kMostRefusals = 64;      // that status shows
constexpr std::size_t kGrowingValue = 32;  // bytes: what a size query of a value that changes by itself answers

std::string_view name_of(crypto::Suite suite) {
  switch (suite) {
    case crypto::Suite::aes_256_gcm: return "aes-256-gcm";
    case crypto::Suite::chacha20_poly1305: return "chacha20-poly1305";
    case crypto::Suite::plain_gmac: return "plain";
  }
  return "unknown";
}

KeyFacts facts_of(const kms::KeyInfo& info) {
  KeyFacts facts;
  facts.id = to_hex(info.id);
  facts.alias = info.alias;
  facts.state = kms::name_of(info.state);
  facts.version = info.version;
  facts.oldest = info.oldest;
  facts.owner = info.owner;
  facts.created = info.created;
  facts.deletion = info.deletion;
  facts.grantees = info.grantees;
  return facts;
}

bool is_ours(std::string_view name) { return name.substr(0, kOurPrefix.size()) == kOurPrefix; }

Status check_attribute_name(std::string_view name) {
  if (name.substr(0, 5) != "user.") return fail(Errc::not_supported, "only user.* attributes are kept");
  if (name.size() == 5) return fail(Errc::invalid, "an attribute needs a name");
  if (name.size() > kMostAttributeName) return fail(Errc::small_buffer, "an attribute's name has at most 255 bytes");
  return {};
}

bool is_below(const Tree& tree, Ino node, Ino ancestor) {
  for (int depth = 0; depth < 4096; ++depth) {
    if (node == ancestor) return true;
    if (node == kRootIno) return false;
    const auto inode = tree.get(node);
    if (!inode) return false;
    node = inode->parent;
  }
  return false;
}

class LocalEngine final : public Engine {
 public:
  LocalEngine(std::string path, std::unique_ptr<store::Store> store, Tree tree)
      : path_(std::move(path)),
        store_(std::move(store)),
        tree_(std::move(tree)),
        audit_(store_->catalog()),
        profiles_(*store_),
        filler_(*store_, tree_, readers_, profiles_, audit_),
        prefetcher_(readers_, copy_on_read_),
        initializer_(*store_, tree_),
        key_uses_(*store_, tree_, filler_),
        key_life_(*store_, key_uses_, audit_),
        images_(*store_, tree_, filler_, copy_on_read_, readers_, initializer_, profiles_, prefetcher_, audit_),
        rotator_(*store_, tree_, images_, audit_),
        attributes_(*store_, tree_, images_, filler_) {
    tree_.set_reaper(&images_);
    // A replica whose source had no digest yet, or that was written to, is examined now.
    filler_.set_completed([this](Ino ino) { initializer_.completed(ino); });
    initializer_.set_is_running([this](Ino ino) { return images_.is_running(ino); });
    initializer_.set_disk_wanted([this](Ino ino) { return images_.become_disk(ino); });
  }
  ~LocalEngine() override { stop(); }

  Status start(const OpenOptions& options) {
    RK_TRY(audit_.load());
    RK_TRY(images_.reap_orphans());
    RK_TRY(filler_.resume());
    RK_TRY(store_->checkpointer().start());
    RK_TRY(copy_on_read_.start());
    if (options.read_only) return {};
    RK_TRY(key_life_.start());
    RK_TRY(filler_.start(options.filler_workers));
    RK_TRY(initializer_.start());
    RK_TRY(prefetcher_.start());
    return rotator_.start();
  }

  Status close() override {
    stop();
    return store_->close();
  }
  void set_observer(Observer* observer) override {
    images_.set_observer(observer);
    key_life_.set_observer(observer);
  }
  const std::string& store_path() const override { return path_; }

  // --- names ---------------------------------------------------------------------------------------------------

  Result<Attributes> lookup(Ino parent, std::string_view name) override {
    RK_TRY_ASSIGN(const Ino ino, tree_.lookup(parent, name));
    return get_attributes(ino);
  }

  Result<Attributes> get_attributes(Ino ino) override {
    return tree_.look_at(ino, [&](const InodeRecord& inode) { return attributes_of(ino, inode); });
  }

  Result<Attributes> set_attributes(Ino ino, const AttributeChange& change, const Caller& caller, OpenFile* file) override {
    RK_TRY(may_change());
    if (change.size) RK_TRY(images_.resize(ino, *change.size, file, caller));
    // Asked before the transaction: within one, nobody asks what is open.
    bool settled = false;
    if (change.permissions) {
      RK_TRY_ASSIGN(const InodeRecord seen, tree_.get(ino));
      settled = seen.kind == NodeKind::image && images_.is_settled(ino, seen);
    }
    {
      catalog::WriteTxn txn(store_->catalog());
      RK_TRY_ASSIGN(InodeRecord inode, Tree::get(txn, ino));
      RK_TRY(apply(change, settled, inode));
      Tree::put(txn, ino, inode);
      RK_TRY(txn.commit());
    }
    return get_attributes(ino);
  }

  Result<Ino> parent_of(Ino directory) override {
    RK_TRY_ASSIGN(const InodeRecord inode, tree_.get(directory));
    return inode.parent;
  }
  Result<Attributes> make_directory(Ino parent, std::string_view name, mode_t mode, const Caller& caller) override {
    RK_TRY(may_add());
    RK_TRY_ASSIGN(const Ino ino, tree_.make_directory(parent, name, mode, caller));
    return get_attributes(ino);
  }
  Result<Attributes> make_symlink(Ino parent, std::string_view name, std::string_view target, const Caller& caller) override {
    RK_TRY(may_add());
    RK_TRY_ASSIGN(const Ino ino, tree_.make_symlink(parent, name, target, caller));
    return get_attributes(ino);
  }
  Result<std::string> read_symlink(Ino ino) override {
    RK_TRY_ASSIGN(InodeRecord inode, tree_.get(ino));
    if (inode.kind != NodeKind::symlink) return fail(Errc::invalid);
    return std::move(inode.target);
  }
  Result<Attributes> link(Ino ino, Ino parent, std::string_view name) override {
    RK_TRY(may_add());
    RK_TRY(tree_.link(ino, parent, name));
    return get_attributes(ino);
  }
  Status unlink(Ino parent, std::string_view name) override {
    RK_TRY(writable());
    return tree_.unlink(parent, name);
  }
  Status remove_directory(Ino parent, std::string_view name) override {
    RK_TRY(writable());
    return tree_.remove_directory(parent, name);
  }
  Status rename(Ino parent, std::string_view name, Ino new_parent, std::string_view new_name, Rename how) override {
    RK_TRY(may_change());
    return tree_.rename(parent, name, new_parent, new_name, how);
  }
  Result<std::vector<DirectoryEntry>> read_directory(Ino ino, std::uint64_t cookie, std::size_t most) override {
    return tree_.list(ino, cookie, most);
  }

  // --- content -------------------------------------------------------------------------------------------------

  Result<Created> create(Ino parent, std::string_view name, mode_t mode, int, const Caller& caller) override {
    RK_TRY(may_add());
    RK_TRY_ASSIGN(OpenFilePtr file, images_.create(parent, name, mode, caller));
    RK_TRY_ASSIGN(const Attributes attributes, get_attributes(file->image->ino));
    return Created{attributes, std::move(file)};
  }
  Result<OpenFilePtr> open_file(Ino ino, int flags, const Caller& caller) override { return images_.open(ino, flags, caller); }
  Result<std::size_t> read(OpenFile& file, std::uint64_t offset, ByteSpan out) override { return images_.read(file, offset, out); }
  Result<std::size_t> write(OpenFile& file, std::uint64_t offset, ByteView bytes) override {
    return images_.write(file, offset, bytes);
  }
  Status allocate(OpenFile& file, Allocate what, bool keep_size, std::uint64_t offset, std::uint64_t size) override {
    return images_.allocate(file, what, keep_size, offset, size);
  }
  Result<std::uint64_t> seek(OpenFile& file, std::uint64_t offset, Seek what) override { return images_.seek(file, offset, what); }
  Result<std::uint64_t> copy_range(OpenFile& in, std::uint64_t offset_in, OpenFile& out, std::uint64_t offset_out,
                                   std::uint64_t size, const Caller& caller) override {
    return images_.copy_range(in, offset_in, out, offset_out, size, caller);
  }
  Status choose_target(OpenFile& file, const TargetChoice& choice, const Caller& caller) override {
    return images_.choose_target(file, choice, caller);
  }
  std::optional<Error> refusal_of(OpenFile& file) override { return images_.refusal_of(file); }
  Result<ReplicationPlan> plan_replication(OpenFile& source, Ino directory, const TargetChoice& choice, const Caller& caller) override {
    return images_.plan(source, directory, choice, caller);
  }
  TransformRate transform_rate(OpenFile& source) override { return images_.transform_rate(source); }
  Status flush(OpenFile& file) override { return images_.flush(file); }
  Status sync(OpenFile& file) override { return images_.sync(file); }
  Status sync_directory(Ino) override { return store_->checkpointer().sync_journal({}); }
  Status sync_all() override { return store_->checkpointer().sync_all(); }

  // --- extended attributes -------------------------------------------------------------------------------------

  Result<std::string> get_attribute(Ino ino, std::string_view name) override {
    RK_TRY(check_attribute_name(name));
    if (is_ours(name)) return attributes_.get(ino, name.substr(kOurPrefix.size()));
    auto value = tree_.get_attribute(ino, name);
    const bool nobody_set_it = !value && value.error().code == Errc::no_attribute;
    return nobody_set_it && name == images::kMimeType ? attributes_.detected_mime_type(ino) : value;
  }
  Result<std::size_t> attribute_size(Ino ino, std::string_view name) override {
    RK_TRY_ASSIGN(const std::string value, get_attribute(ino, name));
    return is_ours(name) ? std::max(value.size(), kGrowingValue) : value.size();
  }
  Result<std::vector<std::string>> list_attributes(Ino ino) override {
    RK_TRY(tree_.get(ino));
    return tree_.list_attributes(ino);
  }
  Status set_attribute(Ino ino, std::string_view name, std::string_view value, SetAttribute how, const Caller& caller) override {
    RK_TRY(may_change());
    RK_TRY(check_attribute_name(name));
    if (is_ours(name)) return attributes_.set(ino, name.substr(kOurPrefix.size()), value, how, caller);
    if (value.size() > kMostAttributeValue) return fail(Errc::small_buffer, "an attribute's value has at most 64 KiB");
    if (value.size() > kSmallValue) RK_TRY(store_->storage().room_to_add(value.size()));
    return tree_.set_attribute(ino, name, value, how);
  }
  Status remove_attribute(Ino ino, std::string_view name, const Caller& caller) override {
    RK_TRY(may_change());
    RK_TRY(check_attribute_name(name));
    if (is_ours(name)) return attributes_.remove(ino, name.substr(kOurPrefix.size()), caller);
    return tree_.remove_attribute(ino, name);
  }

  // --- facts and commands --------------------------------------------------------------------------------------

  Status health() override { return store_->health().is_sound(); }

  Result<Space> space() override {
    RK_TRY_ASSIGN(const io::Space space, store_->storage().space());
    return Space{space.total, space.available, store_->catalog().nodes()};
  }

  Result<Ino> resolve(std::string_view path) override {
    Ino ino = kRootIno;
    while (!path.empty()) {
      const std::size_t slash = std::min(path.find('/'), path.size());
      if (const std::string_view name = path.substr(0, slash); !name.empty()) {
        RK_TRY_ASSIGN(ino, tree_.lookup(ino, name));
      }
      path.remove_prefix(std::min(slash + 1, path.size()));
    }
    return ino;
  }

  std::string path_of(Ino ino) override { return tree_.path_of(ino); }

  Result<NodeInfo> info(Ino ino) override {
    NodeInfo info;
    RK_TRY_ASSIGN(info.attributes, get_attributes(ino));
    info.path = tree_.path_of(ino);
    for (const std::string& name : attributes_.names_with_values(ino)) {
      const auto value = get_attribute(ino, name);
      if (value) info.ours.push_back({name, *value});
    }
    RK_TRY_ASSIGN(const std::vector<std::string> listed, list_attributes(ino));
    for (const std::string& name : listed) {
      const auto value = get_attribute(ino, name);
      if (value) info.others.push_back({name, *value});
    }
    if (info.attributes.kind != NodeKind::image) return info;
    RK_TRY(describe_layers(ino, info));
    return info;
  }

  Result<std::optional<BootReads>> boot_reads(Ino image) override {
    RK_TRY_ASSIGN(const auto found, boot_profile_of(image));
    if (!found) return std::optional<BootReads>{};
    BootReads reads;
    reads.recorded = found->profile.recorded;
    reads.bytes = found->profile.bytes();
    for (const boot::Run& run : found->profile.runs)
      reads.ranges.push_back({run.first * boot::BootProfile::kUnit, run.count * boot::BootProfile::kUnit});
    return std::optional(std::move(reads));
  }

  Status clear_boot_profile(Ino image, const Caller& caller) override {
    RK_TRY(may_change());
    RK_TRY_ASSIGN(const auto found, boot_profile_of(image));
    if (!found) return fail(Errc::no_attribute, "the image has no boot profile: its first boot is still to come");
    RK_TRY_ASSIGN(const blocks::LayerRecord layer, store_->layers().record_of(found->layer));
    const Ino holder = layer.owner ? layer.owner : image;
    RK_TRY_ASSIGN(const InodeRecord held, tree_.get(holder));
    if (caller.uid != 0 && caller.uid != held.uid)
      return fail(Errc::not_permitted, "the boot profile is that of " + tree_.path_of(holder) + ": only its owner or root clears it");
    return profiles_.erase(found->layer);
  }

  Result<std::vector<Replication>> replications(Ino under) override {
    std::vector<Replication> all;
    for (const auto& job : filler_.progress()) {
      const auto inode = tree_.get(job.ino);
      if (!inode || !is_below(tree_, job.ino, under)) continue;
      Replication one;
      one.ino = job.ino;
      one.path = tree_.path_of(job.ino);
      one.state = job.error.empty() ? ImageState::replicating : ImageState::error;
      one.error = job.error;
      one.bytes_total = job.total;
      one.bytes_done = job.done;
      one.bytes_per_second = job.rate;
      one.key_after = alias_of(store_->layers().record_of(inode->image.layer));
      if (inode->image.lineage) one.key_before = alias_of(inode->image.lineage->key_before);
      const auto bytes = store_->catalog().get(catalog::make_key(catalog::Table::replication, job.ino.value()));
      if (!bytes || !*bytes) continue;  // it has just become normal
      RK_TRY_ASSIGN(const auto record, replication::ReplicationRecord::decode(**bytes));
      one.source = record.source;
      one.started = record.started;
      all.push_back(std::move(one));
    }
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.path < b.path; });
    return all;
  }

  std::vector<Refusal> refusals() override {
    EventQuery query;
    query.kind = EventKind::refused;
    query.most = kMostRefusals;
    std::vector<Refusal> latest;
    const auto found = audit_.find(query);
    if (!found) return latest;
    for (auto event = found->rbegin(); event != found->rend(); ++event)
      latest.push_back({event->time, event->path, event->source, event->text, event->code.value_or(Errc::invalid), event->uid});
    return latest;
  }
  Result<std::vector<Event>> events(const EventQuery& query) override { return audit_.find(query); }

  Result<KeyFacts> create_key(std::string_view alias, const Caller& caller) override {
    RK_TRY(may_add());
    RK_TRY_ASSIGN(const kms::KeyInfo info, key_life_.create(alias, caller));
    return facts_of(info);
  }
  Result<std::vector<KeyFacts>> list_keys() override {
    RK_TRY_ASSIGN(const std::vector<kms::KeyInfo> keys, store_->keys().list());
    std::vector<KeyFacts> facts;
    for (const kms::KeyInfo& info : keys) facts.push_back(facts_of(info));
    return facts;
  }
  Result<KeyFacts> find_key(std::string_view alias_or_id) override {
    RK_TRY_ASSIGN(const kms::KeyInfo info, store_->keys().find(alias_or_id));
    return facts_of(info);
  }

  Result<KeyFacts> change_key(std::string_view alias_or_id, const KeyChange& change, const Caller& caller) override {
    RK_TRY(may_change());
    RK_TRY_ASSIGN(const kms::KeyInfo info, key_life_.change(alias_or_id, change, caller));
    return facts_of(info);
  }

  Result<std::uint64_t> rotate_directory(Ino directory, std::string_view alias_or_id, const Caller& caller) override {
    RK_TRY(may_add());
    return rotator_.rotate(directory, alias_or_id, caller);
  }

  Result<std::vector<KeyUse>> key_uses(std::string_view alias_or_id) override {
    RK_TRY_ASSIGN(const kms::KeyInfo key, store_->keys().find(alias_or_id));
    RK_TRY_ASSIGN(const std::vector<keys::KeyUses::Use> all, key_uses_.of(key.id));
    std::vector<KeyUse> uses;
    for (const keys::KeyUses::Use& use : all) uses.push_back(use.facts);
    return uses;
  }

 private:
  void stop() {
    rotator_.stop();
    key_life_.stop();
    initializer_.stop();
    filler_.stop();
    prefetcher_.stop();
    copy_on_read_.stop();
    store_->checkpointer().stop();
  }
  Status writable() { return store_->health().may_write(); }
  // On a full disk, changes of what is there work for longer than what adds to it, and deleting always.
  Status may_change() {
    RK_TRY(writable());
    return store_->storage().room_to_change();
  }
  Status may_add() {
    RK_TRY(writable());
    return store_->storage().room_to_add(kMostAdded);
  }

  Result<Attributes> attributes_of(Ino ino, const InodeRecord& inode) {
    Attributes out;
    out.ino = ino;
    out.kind = inode.kind;
    out.permissions = inode.permissions;
    out.links = inode.links;
    out.uid = inode.uid;
    out.gid = inode.gid;
    out.accessed = inode.accessed;
    out.modified = inode.modified;
    out.changed = inode.changed;
    if (inode.kind == NodeKind::symlink) out.size = inode.target.size();
    if (inode.kind == NodeKind::directory) out.size = 4096;
    if (inode.kind == NodeKind::image) {
      RK_TRY_ASSIGN(out.size, images_.size_of(ino, inode));
    }
    return out;
  }

  Status apply(const AttributeChange& change, bool settled, InodeRecord& inode) {
    if (change.permissions) RK_TRY(change_permissions(*change.permissions & 07777, settled, inode));
    if (change.uid) inode.uid = *change.uid;
    if (change.gid) inode.gid = *change.gid;
    if (change.accessed) inode.accessed = *change.accessed;
    if (change.modified) inode.modified = *change.modified;
    inode.changed = change.changed.value_or(now());
    return {};
  }

  // An encrypted image cannot be shared. Copiers chmod right after writing and must not fail: until the image is
  // normal and has been left alone, the bits are left out; afterwards adding them is an error.
  Status change_permissions(mode_t wanted, bool settled, InodeRecord& inode) {
    if (inode.kind == NodeKind::image && (wanted & ~images::kOwnerOnly)) {
      RK_TRY_ASSIGN(const blocks::LayerRecord layer, store_->layers().record_of(inode.image.layer));
      if (layer.key) {
        if (settled)
          return fail(Errc::not_permitted, "an encrypted image cannot be shared: copy it into a plain directory and share that");
        wanted &= images::kOwnerOnly;
      }
    }
    inode.permissions = wanted;
    return {};
  }

  std::string alias_of(const std::optional<kms::KeyId>& key) {
    if (!key) return "";
    const auto info = store_->keys().find(*key);
    return info ? info->alias : to_hex(*key);
  }
  std::string alias_of(const Result<blocks::LayerRecord>& layer) { return layer ? alias_of(layer->key) : ""; }

  Result<std::optional<boot::BootProfiles::Found>> boot_profile_of(Ino image) {
    RK_TRY_ASSIGN(const InodeRecord inode, tree_.get(image));
    if (inode.kind != NodeKind::image) return fail(Errc::invalid, tree_.path_of(image) + " is no image: only images have a boot profile");
    return profiles_.find(inode.image.layer);
  }

  Status describe_layers(Ino ino, NodeInfo& info) {
    RK_TRY_ASSIGN(const InodeRecord inode, tree_.get(ino));
    if (const auto& lineage = inode.image.lineage)
      info.origin = Origin{to_uuid_text(lineage->source), alias_of(lineage->key_before), lineage->replicated, lineage->completed};
    RK_TRY_ASSIGN(const std::vector<keys::KeyUses::LayerAt> chain, key_uses_.chain_of(ino));
    for (const keys::KeyUses::LayerAt& at : chain) {
      LayerInfo layer;
      layer.id = at.id;
      layer.key = alias_of(at.record.key);
      layer.key_id = at.record.key ? to_hex(*at.record.key) : "";
      layer.key_version = at.record.data_key.version;
      layer.suite = name_of(at.record.suite);
      layer.block_size = 1u << at.record.block_shift;
      RK_TRY_ASSIGN(const auto sizes, store_->layers().sizes_of(at.id));
      layer.stored = sizes.stored;
      const auto is_it = [&](const KeyNeed& need) { return need.key == layer.key; };
      if (!layer.key.empty() && std::none_of(info.keys_needed.begin(), info.keys_needed.end(), is_it))
        info.keys_needed.push_back({layer.key, info.layers.empty() ? "until it is deleted" : key_uses_.until_replicated(ino)});
      info.layers.push_back(std::move(layer));
    }
    return {};
  }

  const std::string path_;
  std::unique_ptr<store::Store> store_;
  Tree tree_;
  audit::AuditLog audit_;
  const boot::BootProfiles profiles_;
  replication::Readers readers_;
  replication::Filler filler_;
  replication::CopyOnRead copy_on_read_;
  images::Prefetcher prefetcher_;
  images::Initializer initializer_;
  keys::KeyUses key_uses_;
  keys::KeyLife key_life_;
  images::Images images_;
  images::Rotator rotator_;
  images::OurAttributes attributes_;
};

}  // namespace

Status Engine::initialize(const std::string& store, const Credential& credential) {
  crypto::keep_openssl_in_secret_memory();
  return store::Store::create(store, credential, Tree::initial_records(Caller{geteuid(), getegid()}));
}

Result<CheckReport> Engine::check(const std::string& store, const Credential& credential, const CheckOptions& options,
                                  CheckObserver& observer) {
  crypto::keep_openssl_in_secret_memory();
  return check::check_store(store, credential, options, observer);
}

Result<Credential::Kind> Engine::unlocked_by(const std::string& store) {
  crypto::keep_openssl_in_secret_memory();  // the superblock has a checksum, the first thing that OpenSSL is used for
  RK_TRY_ASSIGN(const std::unique_ptr<io::LocalStorage> storage, io::LocalStorage::open(store));
  RK_TRY_ASSIGN(const store::Superblock superblock, store::read_superblock(*storage));
  return superblock.kind;
}

Result<std::unique_ptr<Engine>> Engine::open(const std::string& path, const Credential& credential, const OpenOptions& options) {
  crypto::keep_openssl_in_secret_memory();
  RK_TRY_ASSIGN(std::unique_ptr<store::Store> store, store::Store::open(path, credential, options.read_only));
  return make_engine(path, std::move(store), options);
}

Result<std::unique_ptr<Engine>> make_engine(const std::string& path, std::unique_ptr<store::Store> store, const OpenOptions& options) {
  RK_TRY_ASSIGN(Tree tree, Tree::create(store->catalog(), store->root(), store->id()));
  auto engine = std::make_unique<LocalEngine>(path, std::move(store), std::move(tree));
  RK_TRY(engine->start(options));
  return engine;
}

}  // namespace rekeyfs
