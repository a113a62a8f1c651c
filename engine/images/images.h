// Images: the content side of the name space. Opens, reads, writes and deletes images; decides which layer a write
// goes to; replicates. Thread-safe. Locks, outermost first: opening(), Image::mutex (by ino), layer, catalog.
#pragma once

#include <deque>
#include <unordered_map>

#include "engine/audit/audit_log.h"
#include "engine/images/image.h"
#include "engine/images/initializer.h"
#include "engine/images/prefetcher.h"
#include "engine/keys/key_access.h"
#include "engine/namespace/tree.h"
#include "engine/replication/copy_on_read.h"
#include "engine/replication/filler.h"
#include "engine/store/store.h"
#include "engine/types/caller.h"
#include "engine/types/content.h"
#include "engine/types/event.h"
#include "engine/types/image_state.h"
#include "engine/types/observer.h"
#include "engine/types/open_file.h"
#include "engine/types/replication_plan.h"
#include "engine/types/target_choice.h"
#include "engine/types/transform_rate.h"

namespace rekeyfs::images {

inline constexpr std::uint64_t kMostSize = std::uint64_t{16} << 40;  // bytes of an image

inline constexpr mode_t kOwnerOnly = 07700;  // what an encrypted image may carry: it cannot be shared

class Images final : public names::ImageReaper {
 public:
  // All outlive it.
  Images(store::Store& store, names::Tree& tree, replication::Filler& filler, replication::CopyOnRead& copy_on_read,
         replication::Readers& readers, Initializer& initializer, const boot::BootProfiles& profiles, Prefetcher& prefetcher,
         audit::AuditLog& audit)
      : store_(store),
        tree_(tree),
        filler_(filler),
        copy_on_read_(copy_on_read),
        readers_(readers),
        initializer_(initializer),
        profiles_(profiles),
        prefetcher_(prefetcher),
        audit_(audit) {}
  void set_observer(Observer* observer) { observer_ = observer; }

  // Deletes images that were unlinked and open when the store was last left. Before any traffic.
  Status reap_orphans();

  Result<OpenFilePtr> create(Ino parent, std::string_view name, mode_t mode, const Caller& caller);
  Result<OpenFilePtr> open(Ino ino, int flags, const Caller& caller);
  void release(OpenFile* file);

  Result<std::size_t> read(OpenFile& file, std::uint64_t offset, ByteSpan out);
  Result<std::size_t> write(OpenFile& file, std::uint64_t offset, ByteView bytes);
  Status resize(Ino ino, std::uint64_t size, OpenFile* file, const Caller& caller);
  Status allocate(OpenFile& file, Allocate what, bool keep_size, std::uint64_t offset, std::uint64_t size);
  Result<std::uint64_t> seek(OpenFile& file, std::uint64_t offset, Seek what);
  Result<std::uint64_t> copy_range(OpenFile& in, std::uint64_t offset_in, OpenFile& out, std::uint64_t offset_out,
                                   std::uint64_t size, const Caller& caller);
  // Whether somebody has it open as a virtual machine's disk.
  bool is_running(Ino ino) EXCLUDES(opening_);
  // The image becomes the disk in it, if fast create still wants that. Errc::busy while somebody has it open.
  Status become_disk(Ino ino);
  // The image is encrypted anew, with another key, while it is read and written. False if it has the key already;
  // Errc::busy while it is being replaced.
  Result<bool> rekey(Ino ino, const kms::KeyId& key, uid_t asker);
  Status choose_target(OpenFile& file, const TargetChoice& choice, const Caller& caller);
  std::optional<Error> refusal_of(OpenFile& file);
  Result<ReplicationPlan> plan(OpenFile& source, Ino directory, const TargetChoice& choice, const Caller& caller);
  TransformRate transform_rate(OpenFile& source);
  Status flush(OpenFile& file);
  Status sync(OpenFile& file);

  // As readers see them now.
  Result<std::uint64_t> size_of(Ino ino, const names::InodeRecord& inode);
  ImageState state_of(Ino ino, const names::InodeRecord& inode);
  // Normal, closed by who made it, and left alone: chmod now means what it says.
  bool is_settled(Ino ino, const names::InodeRecord& inode);
  std::optional<names::Findings> findings_of(Ino ino, const names::InodeRecord& inode);

  Mutex& opening() override { return opening_; }
  Status image_unlinked(catalog::WriteTxn& txn, Ino ino, names::InodeRecord& inode) override;
  void unlink_committed(bool committed) override;

 private:
  using ImagePtr = std::shared_ptr<Image>;
  using Plan = blocks::LayerRegistry::Plan;

  Result<ImagePtr> open_image(Ino ino) EXCLUDES(opening_);
  std::shared_ptr<boot::Recording> close(OpenFile& closed) EXCLUDES(opening_);
  ImagePtr find_open(Ino ino) EXCLUDES(opening_);
  Status reap(catalog::WriteTxn& txn, Ino ino, std::vector<blocks::LayerRegistry::Released>& released);
  void forget(Ino ino, const std::vector<blocks::LayerRegistry::Released>& released);
  // Whether the caller may use the keys that `flags` ask for. Refused: on record, under `path`.
  Status check_keys(const Image& image, int flags, const Caller& caller) EXCLUDES(image.mutex);
  Status check_key(const std::optional<kms::KeyId>& key, const Caller& caller, const std::function<std::string()>& path);
  static Event refusal_event(std::string path, const Caller& caller, const Error& rule);
  void record(Event refusal);
  // What the log says of a copy: a replication, or a clone where the key stays. Not inside a transaction.
  Event copy_event(Ino target, Ino source, const blocks::LayerRecord& layer, const blocks::LayerRecord& base, uid_t asker) const;
  Status may_change(OpenFile& file);
  void mark_unflushed(OpenFile& file);
  blocks::Layer::Touch touch(Image& image) const;  // for a change by a user

  // Runs `change` on a top layer that may be changed, with Image::mutex held shared.
  Status with_writable(Image& image, const std::function<Status(const std::shared_ptr<blocks::Layer>&)>& change);
  Status make_writable(Image& image) REQUIRES(image.mutex);
  // What an image goes on as, over the content it had.
  struct Overlay {
    std::optional<kms::KeyId> key;
    DiskInside inside = {};  // if it is wrapped, the image becomes that disk
    uid_t asker = 0;
  };
  Status put_overlay(Image& image, const Overlay& overlay) REQUIRES(image.mutex);
  // The image goes on with new, empty content, as the policy says.
  Status replace_content(Image& image, const names::Policy& policy) REQUIRES(image.mutex);
  // What an image opened with O_TRUNC goes on with: the policy of its directory.
  Result<names::Policy> policy_of_new_content(const Image& image) const REQUIRES_SHARED(image.mutex);
  // The policy that makes what the image is already.
  static names::Policy policy_behind(const Image& image, const names::InodeRecord& inode) REQUIRES_SHARED(image.mutex);
  // An encrypted image cannot be shared: the bits go in the transaction that makes it one; announced without locks.
  static void take_sharing_away(Image& image, names::InodeRecord& inode);
  void announce_permissions(Image& image);

  // fast_create.cpp
  static Result<DiskInside> look_inside(const std::shared_ptr<blocks::Layer>& content);
  Status become_disk(Image& image, uid_t asker);
  Status become(Image& image, const DiskInside& inside, uid_t asker) REQUIRES(image.mutex);
  Status record_disk_state(Ino ino, names::DiskState state);

  // boot.cpp
  void begin_boot(OpenFile& file, const names::InodeRecord& inode) EXCLUDES(opening_);
  // What was recorded, if that was the last of the machines.
  std::shared_ptr<boot::Recording> end_boot(OpenFile& closed) REQUIRES(opening_);
  void keep_profile(boot::Recording& recording) EXCLUDES(opening_);
  // What a new layer is given a copy of.
  std::optional<boot::BootProfile> profile_to_carry(const blocks::LayerRecord& layer, const blocks::Layer& base) const;

  // plan.cpp
  Result<std::optional<kms::KeyId>> key_of(const TargetChoice& choice, Ino directory) const;
  Result<std::uint64_t> stored_of(LayerId top) const;

  // copy_range.cpp
  struct Copy;
  static Status type_rule(const names::InodeRecord& from);
  Status state_rule(Ino ino, const names::InodeRecord& from, bool clones);
  Status check_type(const Copy& copy);
  // A rule that is broken is a refusal of the copy.
  Status enforce(const Copy& copy, const Status& rule);
  Status settle_terms(Copy& copy);
  Result<bool> start_stitch(Copy& copy);
  Result<bool> attach(Copy& copy, const names::InodeRecord& from, Stitch& stitch);
  static Plan plan_over(const Image& image, const Copy& copy, const Stitch& stitch) REQUIRES_SHARED(image.mutex);
  static void become_copy(names::InodeRecord& inode, const names::InodeRecord& from, const Copy& copy, const Stitch& stitch,
                          const blocks::LayerRegistry::NewLayer& fresh, bool is_whole);
  Result<bool> put_over(Image& image, Copy& copy, const names::InodeRecord& from, Stitch& stitch) REQUIRES(image.mutex);
  Status continue_stitch(Copy& copy, const Stitch& stitch);
  static void note_copied(const Copy& copy);
  blocks::Layer::Touch touch_by_copy(Ino ino) const;
  Status end_stitch(Image& image, const Stitch& stitch);
  Status copy_bytes(const Copy& copy, std::uint64_t from, std::uint64_t to);
  static Status copy_bytes_to(blocks::Layer& target, blocks::Layer& source, std::uint64_t from, std::uint64_t to,
                              const blocks::Layer::Touch& touched);
  Error refuse(OpenFile& out, Event refusal);

  store::Store& store_;
  names::Tree& tree_;
  replication::Filler& filler_;
  replication::CopyOnRead& copy_on_read_;
  replication::Readers& readers_;
  Initializer& initializer_;
  const boot::BootProfiles& profiles_;
  Prefetcher& prefetcher_;
  audit::AuditLog& audit_;
  Observer* observer_ = nullptr;

  Mutex opening_;
  std::unordered_map<Ino, ImagePtr> open_ GUARDED_BY(opening_);
  std::vector<blocks::LayerRegistry::Released> released_ GUARDED_BY(opening_);  // by the unlinking transaction at work
  Ino unlinking_ GUARDED_BY(opening_);
};

}  // namespace rekeyfs::images
