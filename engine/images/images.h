// Images: the content side of the name space. Opens, reads, writes and deletes images; decides which layer a write
// goes to; replicates. Thread-safe. Locks, outermost first: opening(), Image::mutex (by ino), layer, catalog.
#pragma once

#include <deque>
#include <unordered_map>

#include "engine/audit/audit_log.h"
#include "engine/images/image.h"
#include "engine/images/initializer.h"
#include "engine/namespace/tree.h"
#include "engine/replication/copy_on_read.h"
#include "engine/replication/filler.h"
#include "engine/store/store.h"

namespace rekeyfs::images {

inline constexpr std::uint64_t kMostSize = std::uint64_t{16} << 40;  // bytes of an image

inline constexpr mode_t kOwnerOnly = 07700;  // what an encrypted image may carry: it cannot be shared

class Images final : public names::ImageReaper {
 public:
  // All outlive it.
  Images(store::Store& store, names::Tree& tree, replication::Filler& filler, replication::CopyOnRead& copy_on_read,
         Initializer& initializer, audit::AuditLog& audit)
      : store_(store), tree_(tree), filler_(filler), copy_on_read_(copy_on_read), initializer_(initializer), audit_(audit) {}
  void set_observer(Observer* observer) { observer_ = observer; }

  // Deletes images that were unlinked and open when the store was last left. Before any traffic.
  Status reap_orphans();

  Result<OpenFilePtr> create(Ino parent, std::string_view name, mode_t mode, const Caller& caller);
  Result<OpenFilePtr> open(Ino ino, int flags);
  void release(OpenFile* file);

  Result<std::size_t> read(OpenFile& file, std::uint64_t offset, ByteSpan out);
  Result<std::size_t> write(OpenFile& file, std::uint64_t offset, ByteView bytes);
  Status resize(Ino ino, std::uint64_t size, OpenFile* file);
  Status allocate(OpenFile& file, Allocate what, bool keep_size, std::uint64_t offset, std::uint64_t size);
  Result<std::uint64_t> seek(OpenFile& file, std::uint64_t offset, Seek what);
  Result<std::uint64_t> copy_range(OpenFile& in, std::uint64_t offset_in, OpenFile& out, std::uint64_t offset_out,
                                   std::uint64_t size, const Caller& caller);
  Status choose_key(OpenFile& file, const KeyChoice& choice, const Caller& caller);
  std::optional<Error> refusal_of(OpenFile& file);
  Result<ReplicationPlan> plan(OpenFile& source, Ino directory, const KeyChoice& choice);
  TransformRate transform_rate(OpenFile& source);
  Status flush(OpenFile& file);
  Status sync(OpenFile& file);

  // As readers see them now.
  Result<std::uint64_t> size_of(Ino ino, const names::InodeRecord& inode);
  ImageState state_of(Ino ino, const names::InodeRecord& inode);

  Mutex& opening() override { return opening_; }
  Status image_unlinked(catalog::WriteTxn& txn, Ino ino, names::InodeRecord& inode) override;
  void unlink_committed(bool committed) override;

 private:
  using ImagePtr = std::shared_ptr<Image>;
  using Plan = blocks::LayerRegistry::Plan;

  Result<ImagePtr> open_image(Ino ino) EXCLUDES(opening_);
  ImagePtr find_open(Ino ino) EXCLUDES(opening_);
  Status reap(catalog::WriteTxn& txn, Ino ino, std::vector<blocks::LayerRegistry::Released>& released);
  void forget(Ino ino, const std::vector<blocks::LayerRegistry::Released>& released);
  Status may_change(OpenFile& file);
  void mark_unflushed(OpenFile& file);
  blocks::Layer::Touch touch(Ino ino) const;

  // Runs `change` on a top layer that may be changed, with Image::mutex held shared.
  Status with_writable(Image& image, const std::function<Status(const std::shared_ptr<blocks::Layer>&)>& change);
  Status make_writable(Image& image) REQUIRES(image.mutex);
  Status put_overlay(Image& image) REQUIRES(image.mutex);
  // The image goes on with new, empty content sealed with `key`.
  Status replace_content(Image& image, const std::optional<kms::KeyId>& key) REQUIRES(image.mutex);
  Result<std::optional<kms::KeyId>> policy_key_of(Ino image) const;

  // plan.cpp
  Result<std::optional<kms::KeyId>> key_of(const KeyChoice& choice, Ino directory) const;
  Status check_usable(const std::optional<kms::KeyId>& key) const;
  Result<std::uint64_t> stored_of(LayerId top) const;

  // copy_range.cpp
  struct Copy;
  static Status type_rule(const names::InodeRecord& from);
  Status state_rule(Ino ino, const names::InodeRecord& from);
  Status check_type(const Copy& copy);
  Status check_state(const Copy& copy, const names::InodeRecord& from);
  Event make_refusal(const Copy& copy, Errc code, std::string rule);
  Result<bool> start_stitch(Copy& copy);
  Result<bool> attach(Copy& copy, const names::InodeRecord& from, const Stitch& stitch);
  Result<bool> put_over(Image& image, Copy& copy, const names::InodeRecord& from, const Stitch& stitch) REQUIRES(image.mutex);
  Status continue_stitch(Copy& copy, const Stitch& stitch);
  Status copy_bytes(const Copy& copy, std::uint64_t from, std::uint64_t to);
  static Status copy_bytes_to(blocks::Layer& target, blocks::Layer& source, std::uint64_t from, std::uint64_t to,
                              const blocks::Layer::Touch& touched);
  Error refuse(OpenFile& out, Event refusal);

  store::Store& store_;
  names::Tree& tree_;
  replication::Filler& filler_;
  replication::CopyOnRead& copy_on_read_;
  Initializer& initializer_;
  audit::AuditLog& audit_;
  Observer* observer_ = nullptr;

  Mutex opening_;
  std::unordered_map<Ino, ImagePtr> open_ GUARDED_BY(opening_);
  std::vector<blocks::LayerRegistry::Released> released_ GUARDED_BY(opening_);  // by the unlinking transaction at work
  Ino unlinking_ GUARDED_BY(opening_);
};

}  // namespace rekeyfs::images
