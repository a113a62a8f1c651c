// copy_file_range between images: what `cp` inside the mount calls, and what starts a replication.
//
// A copy to the same offset of a new image becomes a layer over the source's: O(1). The kernel asks for a large
// copy in pieces of at most 4 GiB - 4 KiB, other tools extent by extent; the pieces of one open are stitched into one
// replica of the source as it was at the first piece. Anything else is copied as bytes.
//
// With fast create the target is the disk that a VM sees in the source, whatever format that is a file of: the layer
// over the source reads it through the format.
#include "engine/images/images.h"
#include "engine/types/caller.h"
#include "engine/types/event.h"
#include "engine/types/image_state.h"
#include "engine/types/open_file.h"

#include <algorithm>

namespace rekeyfs::images {

using blocks::LayerRegistry;
using catalog::Table;
using catalog::WriteTxn;
using catalog::make_key;
using names::InodeRecord;
using names::Tree;

// The key of the source, and what the copy will have.
struct Terms {
  std::optional<kms::KeyId> key_before;
  std::optional<kms::KeyId> key;
  bool fast_create = false;
};

struct Images::Copy {
  OpenFile& in;
  OpenFile& out;
  std::uint64_t offset_in, offset_out, size;
  const Caller& caller;
  Terms terms = {};
  bool placed = false;  // the target was made to the measure of this piece
};

namespace {
constexpr std::size_t kCopyPiece = 1u << 20;
constexpr std::string_view kDescription = "user.xdg.comment";  // stays with an image's copies
}

Result<std::uint64_t> Images::copy_range(OpenFile& in, std::uint64_t offset_in, OpenFile& out, std::uint64_t offset_out,
                                         std::uint64_t size, const Caller& caller) {
  RK_TRY(may_change(out));
  Copy copy{in, out, offset_in, offset_out, size, caller};
  std::optional<Stitch> stitch;
  {
    Lock lock(out.mutex);
    stitch = out.stitch;
  }
  const bool same_place = offset_in == offset_out && in.image->ino != out.image->ino;
  const bool goes_on = same_place && stitch && stitch->source == in.image->ino;
  std::uint64_t source_size = 0;
  if (goes_on) {
    source_size = stitch->base->size();
  } else {
    SharedLock lock(in.image->mutex);
    source_size = in.image->truncating ? 0 : in.image->top->size();
  }
  if (offset_in >= source_size) return 0;
  copy.size = std::min({size, source_size - offset_in, kMostSize - std::min(kMostSize, offset_out)});
  if (copy.size == 0) return fail(Errc::too_large, "an image has at most 16 TiB");
  if (copy.in.image->ino != copy.out.image->ino) RK_TRY(check_type(copy));
  mark_unflushed(out);

  if (goes_on) {
    RK_TRY(continue_stitch(copy, *stitch));
  } else {
    bool stitched = false;
    if (same_place && !stitch) {
      RK_TRY_ASSIGN(stitched, start_stitch(copy));
    }
    if (!stitched) RK_TRY(copy_bytes(copy, offset_in, offset_in + copy.size));
  }
  note_copied(copy);
  return copy.size;
}

void Images::note_copied(const Copy& copy) {
  Lock lock(copy.out.mutex);
  std::optional<Stitch>& stitch = copy.out.stitch;
  const bool is_piece = stitch && stitch->source == copy.in.image->ino && copy.offset_in == copy.offset_out;
  if (is_piece && copy.offset_out <= stitch->copied) stitch->copied = std::max(stitch->copied, copy.offset_out + copy.size);
}

Status Images::enforce(const Copy& copy, const Status& rule) {
  if (rule) return {};
  Event refusal = refusal_event(tree_.path_of(copy.out.image->ino), copy.caller, rule.error());
  refusal.source = tree_.path_of(copy.in.image->ino);
  return fail(refuse(copy.out, std::move(refusal)));
}

// A full-ECS image leaves by being read and written only, whatever the target holds.
Status Images::type_rule(const InodeRecord& from) {
  if (from.image.type != names::ImageType::full_ecs) return {};
  return fail(Errc::wrong_medium, "a full-ECS image cannot be replicated");
}

// A disk that fast create made is ready to be cloned from its first byte on.
Status Images::state_rule(Ino ino, const InodeRecord& from, bool clones) {
  const ImageState state = state_of(ino, from);
  if (state == ImageState::normal || state == ImageState::normal_uninitialized) return {};
  if (clones && from.image.disk == names::DiskState::disk && state == ImageState::replicating) return {};
  return fail(Errc::busy, "only images in a normal state can be replicated; this one is " + std::string(name_of(state)) +
                              ": wait for it with 'rekeyfs status --wait'");
}

Status Images::check_type(const Copy& copy) {
  RK_TRY_ASSIGN(const InodeRecord from, tree_.get(copy.in.image->ino));
  return enforce(copy, type_rule(from));
}

Status Images::settle_terms(Copy& copy) {
  Terms terms;
  {
    SharedLock lock(copy.in.image->mutex);
    terms.key_before = copy.in.image->top->made_as().key;
  }
  {
    const Image& target = *copy.out.image;
    SharedLock lock(target.mutex);
    terms.key = target.top->made_as().key;
    terms.fast_create = copy.out.fast_create.load();
    if (target.truncating) {
      RK_TRY_ASSIGN(const names::Policy policy, policy_of_new_content(target));
      terms.key = policy.key;
      terms.fast_create = policy.fast_create;
    }
  }
  copy.terms = terms;
  for (const auto& key : {terms.key_before, terms.key}) RK_TRY(enforce(copy, keys::may_use(store_.keys(), key, copy.caller)));
  return {};
}

Event Images::refusal_event(std::string path, const Caller& caller, const Error& rule) {
  Event refusal;
  refusal.kind = EventKind::refused;
  refusal.path = std::move(path);
  refusal.uid = caller.uid;
  refusal.code = rule.code;
  refusal.text = describe(rule);
  return refusal;
}

void Images::record(Event refusal) {
  log::warn("refused: {} -> {}: {} (uid {})", refusal.source, refusal.path, refusal.text, refusal.uid);
  // A refusal that cannot be kept, on a full disk, stays one.
  if (const Status kept = audit_.add(std::move(refusal)); !kept) log::error("the audit log: {}", describe(kept.error()));
}

Error Images::refuse(OpenFile& out, Event refusal) {
  const Error error{refusal.code.value_or(Errc::not_permitted), refusal.text};
  record(std::move(refusal));
  {
    Lock lock(out.mutex);
    out.refused = error;
  }
  bool restored = false;
  {
    // What O_TRUNC was about to throw away stays.
    UniqueLock lock(out.image->mutex);
    restored = out.truncates && std::exchange(out.image->truncating, false);
  }
  if (restored && observer_) observer_->content_changed(out.image->ino);
  return error;
}

// The first piece. False if the target has content of its own, so that bytes must be copied.
Result<bool> Images::start_stitch(Copy& copy) {
  constexpr int kMostAttempts = 8;  // the source's layer may be replaced while we look
  for (int attempt = 0; attempt < kMostAttempts; ++attempt) {
    RK_TRY_ASSIGN(const InodeRecord from, tree_.get(copy.in.image->ino));
    {
      Image& target = *copy.out.image;
      SharedLock lock(target.mutex);
      const std::shared_ptr<blocks::Layer> top = target.top;
      const bool untouched = target.truncating || (top->stored() == 0 && !top->base());
      if (!untouched) return false;
    }
    RK_TRY(settle_terms(copy));
    RK_TRY(enforce(copy, state_rule(copy.in.image->ino, from, copy.terms.key_before == copy.terms.key)));
    // A part is copied as bytes; the disk in them takes their place when they are all there.
    if (copy.terms.fast_create && copy.offset_out != 0) return false;

    Stitch stitch;
    stitch.source = copy.in.image->ino;
    {
      // Exclusive: no write to the source is under way when its content is frozen.
      UniqueLock lock(copy.in.image->mutex);
      stitch.base = copy.in.image->top;
      stitch.held = std::make_shared<const blocks::BaseRef>(stitch.base);
    }
    // It does not change meanwhile, so nobody has to wait for the format reader.
    const bool may_wrap = copy.terms.fast_create && from.image.disk != names::DiskState::disk;
    const auto inside = may_wrap ? look_inside(stitch.base) : DiskInside{};
    if (inside) stitch.inside = *inside;
    const auto attached = inside ? attach(copy, from, stitch) : fail(inside.error());
    if (!attached && attached.error().code == Errc::wrong_medium) return fail(enforce(copy, fail(attached.error())).error());
    if (!attached) return fail(attached.error());
    if (*attached) return true;
  }
  return false;
}

// Gives the target a layer over the source's and the piece's range of it. False if the source has moved on meanwhile.
Result<bool> Images::attach(Copy& copy, const InodeRecord& from, Stitch& stitch) {
  {
    Image& image = *copy.out.image;
    UniqueLock lock(image.mutex);
    RK_TRY_ASSIGN(const bool attached, put_over(image, copy, from, stitch));
    if (!attached) return false;
  }
  announce_permissions(*copy.out.image);
  {
    Lock lock(copy.out.mutex);
    copy.out.stitch = stitch;
  }
  if (!copy.placed) RK_TRY(continue_stitch(copy, stitch));
  return true;
}

// From the start on the layer is the source's; else it begins as what the target is, and takes the piece's range.
LayerRegistry::Plan Images::plan_over(const Image& image, const Copy& copy, const Stitch& stitch) {
  const bool wrapped = stitch.inside.is_wrapped();
  const std::uint64_t size_now = image.truncating ? 0 : image.top->size();
  LayerRegistry::Plan plan;
  plan.key = copy.terms.key;
  plan.base = stitch.base->id();
  plan.base_format = stitch.inside.format;
  plan.disk_size = stitch.inside.size;
  plan.owner = image.ino;
  plan.from_base = wrapped || (copy.offset_out == 0 && size_now == 0);
  plan.size = wrapped ? stitch.inside.size : plan.from_base ? copy.size : size_now;
  return plan;
}

// What the copy makes of the target's record. A copy of all of the source has its bytes; of a part, others (further
// pieces: end_stitch).
void Images::become_copy(InodeRecord& inode, const InodeRecord& from, const Copy& copy, const Stitch& stitch,
                         const LayerRegistry::NewLayer& fresh, bool is_whole) {
  const blocks::LayerRecord& base = stitch.base->made_as();
  const bool transforms = fresh.record.transforms(base);
  names::ImageRecord& image = inode.image;
  image.layer = fresh.id;
  image.state = transforms ? ImageState::replicating : ImageState::normal;
  image.findings = is_whole ? stitch.findings : std::nullopt;
  image.error.clear();
  image.lineage = names::Lineage{from.image.id, base.key, now(), transforms ? 0 : now()};
  if (from.image.type != names::ImageType::none) image.type = from.image.type;
  const bool is_disk = copy.terms.fast_create || from.image.disk == names::DiskState::disk;
  image.disk = is_disk ? names::DiskState::disk : names::DiskState::as_stored;
  inode.modified = inode.changed = now();
}

Result<bool> Images::put_over(Image& image, Copy& copy, const InodeRecord& from, Stitch& stitch) {
  const Ino ino = image.ino;
  const std::shared_ptr<blocks::Layer>& base = stitch.base;
  const LayerRegistry::Plan plan = plan_over(image, copy, stitch);
  RK_TRY_ASSIGN(const LayerRegistry::NewLayer fresh, store_.layers().make(plan));
  RK_TRY_ASSIGN(std::shared_ptr<blocks::Layer> top, store_.layers().open_new(fresh));
  const bool transforms = fresh.record.transforms(base->made_as());
  // Asked before the transaction: within one, nobody asks a layer.
  const bool is_whole = plan.from_base && !stitch.inside.is_wrapped() && plan.size == base->size();
  const std::optional<boot::BootProfile> profile = profile_to_carry(fresh.record, *base);
  Event event = copy_event(ino, stitch.source, fresh.record, base->made_as(), copy.caller.uid);
  store_.checkpointer().must_precede_sync(base);  // before the record is where a sync makes it durable
  std::vector<LayerRegistry::Released> released;
  {
    WriteTxn txn(store_.catalog());
    RK_TRY_ASSIGN(const InodeRecord source, Tree::get(txn, stitch.source));
    if (source.image.layer != base->id()) return false;
    if (!stitch.inside.is_wrapped()) stitch.findings = source.image.findings;
    stitch.changes = image.changes.load();
    RK_TRY_ASSIGN(InodeRecord inode, Tree::get(txn, ino));
    RK_TRY_ASSIGN(released, store_.layers().release(txn, inode.image.layer));
    LayerRegistry::put(txn, fresh);
    if (profile) boot::BootProfiles::put(txn, fresh.id, *profile);
    become_copy(inode, from, copy, stitch, fresh, is_whole);
    if (plan.key) take_sharing_away(image, inode);
    Tree::put(txn, ino, inode);
    RK_TRY(tree_.inherit_xattr(txn, stitch.source, ino, kDescription));
    const replication::ReplicationRecord record{now(), event.source, event.uid};
    if (transforms) txn.put(make_key(Table::replication, ino.value()), record.encode());
    else txn.erase(make_key(Table::replication, ino.value()));
    RK_TRY(audit_.add(txn, std::move(event)));
    RK_TRY(txn.commit());
  }
  filler_.forget(ino);
  store_.layers().forget(released);
  image.truncating = false;
  image.top = std::move(top);
  if (transforms) filler_.add(ino, image.top, true);
  copy.placed = plan.from_base;
  return true;
}

// A further piece: what lies within the target turns to "from base", what lies beyond extends it.
Status Images::continue_stitch(Copy& copy, const Stitch& stitch) {
  if (stitch.inside.is_wrapped()) return {};
  return with_writable(*copy.out.image, [&](const std::shared_ptr<blocks::Layer>& layer) -> Status {
    const auto touched = touch_by_copy(copy.out.image->ino);
    const std::uint64_t from = copy.offset_out;
    const std::uint64_t to = from + copy.size;
    if (layer->base() != stitch.base) return copy_bytes_to(*layer, *stitch.base, from, to, touched);
    if (from > layer->size()) RK_TRY(layer->resize(from, touched));
    const std::uint64_t within = std::min(to, layer->size());
    if (from < within) {
      const std::uint64_t block = layer->block_size();
      const std::uint64_t first = std::min(within, (from + block - 1) / block * block);
      const std::uint64_t last = std::max(first, within / block * block);
      RK_TRY(copy_bytes_to(*layer, *stitch.base, from, first, touched));
      if (first < last) RK_TRY(layer->take_from_base(first, last - first, touched));
      RK_TRY(copy_bytes_to(*layer, *stitch.base, last, within, touched));
    }
    return to > within ? layer->extend_over_base(to, touched) : Status{};
  });
}

// A clone stays normal meanwhile: sharing is not replication.
blocks::Layer::Touch Images::touch_by_copy(Ino ino) const {
  return [this, ino](WriteTxn& txn) -> Status {
    initializer_.written(ino);
    RK_TRY_ASSIGN(InodeRecord inode, Tree::get(txn, ino));
    inode.modified = inode.changed = now();
    inode.image.findings.reset();
    Tree::put(txn, ino, inode);
    return {};
  };
}

// A copy in pieces that covered all of its source, with nothing written in between, has the source's digest.
Status Images::end_stitch(Image& image, const Stitch& stitch) {
  if (!stitch.findings || stitch.copied < stitch.base->size()) return {};
  UniqueLock lock(image.mutex);  // no change is under way
  const std::shared_ptr<blocks::Layer> top = image.top;
  if (image.changes.load() != stitch.changes || top->base() != stitch.base || top->size() != stitch.base->size()) return {};
  WriteTxn txn(store_.catalog());
  RK_TRY_ASSIGN(InodeRecord inode, Tree::get(txn, image.ino));
  if (inode.image.findings) return {};
  inode.image.findings = stitch.findings;
  Tree::put(txn, image.ino, inode);
  RK_TRY(txn.commit());
  return {};
}

Status Images::copy_bytes_to(blocks::Layer& target, blocks::Layer& source, std::uint64_t from, std::uint64_t to,
                             const blocks::Layer::Touch& touched) {
  std::vector<std::byte> buffer(std::min<std::uint64_t>(kCopyPiece, to - from));
  for (; from < to; from += buffer.size()) {
    const ByteSpan part = ByteSpan(buffer).first(std::min<std::uint64_t>(buffer.size(), to - from));
    RK_TRY(source.read(from, part));
    RK_TRY(target.write(from, part, touched));
  }
  return {};
}

// A part, or to another place, or into an image with content of its own.
Status Images::copy_bytes(const Copy& copy, std::uint64_t from, std::uint64_t to) {
  std::vector<std::byte> buffer(std::min<std::uint64_t>(kCopyPiece, to - from));
  while (from < to) {
    const ByteSpan part = ByteSpan(buffer).first(std::min<std::uint64_t>(buffer.size(), to - from));
    RK_TRY_ASSIGN(const std::size_t got, read(copy.in, from, part));
    if (got == 0) return {};
    RK_TRY(write(copy.out, copy.offset_out + (from - copy.offset_in), part.first(got)));
    from += got;
  }
  return {};
}

}  // namespace rekeyfs::images
