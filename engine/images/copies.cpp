#include "engine/images/copies.h"

#include <algorithm>

#include "engine/base/exceptions.h"
#include "engine/keys/key_access.h"
#include "engine/replication/space_need.h"

namespace rekeyfs::images {

using catalog::WriteTxn;
using names::InodeRecord;
using names::Tree;

struct Copies::Copy {
  OpenFile& in;
  OpenFile& out;
  std::uint64_t offset_in, offset_out, size;
  const Caller& caller;
  std::optional<kms::KeyId> key_before = {};  // of the source
  std::optional<kms::KeyId> key = {};         // of the copy
  bool fast_create = false;
  bool placed = false;  // the target was created with the size of this piece

  bool same_place() const { return offset_in == offset_out && in.ino() != out.ino(); }
  bool goes_on(const Stitch& stitch) const { return same_place() && stitch.source == in.ino(); }
};

namespace {

constexpr std::size_t kCopyPiece = 1u << 20;                       // bytes
constexpr std::string_view kDescription = "user.xdg.comment";  // copied together with the content

std::uint64_t readable_size(const Image& image) {
  SharedLock lock(image.mutex);
  return image.truncations.pending() ? 0 : image.top->size();
}

// Whether nothing was written to the image, so that it may become a copy as a whole.
bool is_untouched(const Image& image) REQUIRES_SHARED(image.mutex) {
  return image.truncations.pending() || (image.top->stored() == 0 && !image.top->base());
}

void note_copied(OpenFile& out, Ino source, std::uint64_t offset, std::uint64_t size) {
  Lock lock(out.mutex);
  if (out.stitch && out.stitch->source == source && offset <= out.stitch->copied)
    out.stitch->copied = std::max(out.stitch->copied, offset + size);
}

Status copy_bytes_to(blocks::Layer& target, blocks::Layer& source, std::uint64_t from, std::uint64_t to,
                     const blocks::Touch& touched) {
  std::vector<std::byte> buffer(std::min<std::uint64_t>(kCopyPiece, to - from));
  for (; from < to; from += buffer.size()) {
    const ByteSpan part = ByteSpan(buffer).first(std::min<std::uint64_t>(buffer.size(), to - from));
    RK_TRY(source.read(from, part));
    RK_TRY(target.write(from, part, touched));
  }
  return {};
}

}  // namespace

Result<std::uint64_t> Copies::copy_range(OpenFile& in, std::uint64_t offset_in, OpenFile& out, std::uint64_t offset_out,
                                         std::uint64_t size, const Caller& caller) {
  Copy copy{in, out, offset_in, offset_out, size, caller};
  std::optional<Stitch> stitch;
  {
    Lock lock(out.mutex);
    stitch = out.stitch;
  }
  const bool goes_on = stitch && copy.goes_on(*stitch);
  const std::uint64_t source_size = goes_on ? stitch->base->layer()->size() : readable_size(in.image());
  if (offset_in >= source_size) return 0;
  copy.size = std::min({size, source_size - offset_in, kMaxSize - std::min(kMaxSize, offset_out)});
  if (copy.size == 0) return fail(Errc::too_large, "an image has at most 16 TiB");
  if (in.ino() != out.ino()) RK_TRY(check_type(copy));
  RK_TRY(find_keys(copy));
  RK_TRY(check_declassification(copy));

  bool stitched = goes_on;
  if (goes_on) RK_TRY(go_on(copy, *stitch));
  if (!stitched && copy.same_place() && !stitch) {
    RK_TRY_ASSIGN(stitched, start(copy));
  }
  if (!stitched) RK_TRY(copy_bytes(copy));
  if (copy.same_place()) note_copied(out, in.ino(), offset_out, copy.size);
  return copy.size;
}

// --- rules -----------------------------------------------------------------------------------------------------

Status Copies::type_rule(const InodeRecord& from) {
  if (from.image.type != names::ImageType::full_ecs) return {};
  return fail(Errc::wrong_medium, "a full-ECS image cannot be replicated");
}

// A disk made by fast create may be cloned from its creation on.
Status Copies::state_rule(Ino ino, const InodeRecord& from, bool clones) const {
  const ImageState state = status_.state_of(ino, from);
  if (state == ImageState::normal || state == ImageState::normal_uninitialized) return {};
  if (clones && from.image.disk == names::DiskState::disk && state == ImageState::replicating) return {};
  return fail(Errc::busy, "only images in state normal can be replicated; this one is in state " +
                              std::string(name_of(state)) + ": wait for it with 'rekeyfs status --wait'");
}

Status Copies::check_type(const Copy& copy) {
  RK_TRY_ASSIGN(const InodeRecord from, swaps_.tree.get(copy.in.ino()));
  return enforce(copy, type_rule(from));
}

// A violated rule refuses the copy.
Status Copies::enforce(const Copy& copy, const Status& rule) {
  if (rule) return {};
  Event refusal = Refusals::event_of(swaps_.tree.path_of(copy.out.ino()), copy.caller, rule.error());
  refusal.source = swaps_.tree.path_of(copy.in.ino());
  return fail(refuse(copy.out, std::move(refusal)));
}

Error Copies::refuse(OpenFile& out, Event refusal) {
  const Error error{refusal.code.value_or(Errc::not_permitted), refusal.text};
  refusals_.record(std::move(refusal));
  out.refuse(error);
  bool restored = false;
  {
    UniqueLock lock(out.image().mutex);
    restored = out.image().truncations.withdraw(out.truncation);
  }
  if (restored) observer_.content_changed(out.ino());
  return error;
}

Status Copies::find_keys(Copy& copy) const {
  {
    const Image& source = copy.in.image();
    SharedLock lock(source.mutex);
    copy.key_before = source.top->made_as().key;
  }
  {
    const Image& target = copy.out.image();
    SharedLock lock(target.mutex);
    copy.key = target.top->made_as().key;
    copy.fast_create = copy.out.fast_create.load();
    if (target.truncations.pending()) {
      RK_TRY_ASSIGN(const names::Policy policy, content_.policy_of_new_content(target));
      copy.key = policy.key;
      copy.fast_create = policy.fast_create;
    }
  }
  return {};
}

// A copy from a key to a plain target declassifies the content.
bool Copies::declassifies(const Copy& copy) { return copy.key_before && !copy.key; }

Status Copies::check_declassification(const Copy& copy) {
  if (!declassifies(copy)) return {};
  RK_TRY(enforce(copy, keys::may_use(swaps_.store.keys(), copy.key_before, copy.caller)));
  return enforce(copy, keys::may_declassify(swaps_.store.keys(), *copy.key_before, copy.caller));
}

Event Copies::declassification(const Copy& copy) const {
  Event event;
  event.kind = EventKind::declassified;
  event.uid = copy.caller.uid;
  event.path = swaps_.tree.path_of(copy.out.ino());
  event.source = swaps_.tree.path_of(copy.in.ino());
  event.key_before = audit::key_named(swaps_.store.keys(), copy.key_before);
  return event;
}

// A tool may copy an image by thousands of calls: the handle remembers that the audit log has it.
Status Copies::record_declassification(const Copy& copy) {
  if (!declassifies(copy)) return {};
  {
    Lock lock(copy.out.mutex);
    if (copy.out.declassified == copy.in.ino()) return {};
  }
  RK_TRY(swaps_.audit.add(declassification(copy)));
  Lock lock(copy.out.mutex);
  copy.out.declassified = copy.in.ino();
  return {};
}

Status Copies::settle_terms(Copy& copy) {
  RK_TRY(find_keys(copy));
  for (const auto& key : {copy.key_before, copy.key}) RK_TRY(enforce(copy, keys::may_use(swaps_.store.keys(), key, copy.caller)));
  return check_declassification(copy);
}

// --- the first piece -------------------------------------------------------------------------------------------

// False if bytes must be copied: the target has its own content, or the source is constantly being written to.
Result<bool> Copies::start(Copy& copy) {
  constexpr int kMaxAttempts = 8;  // the source's layer may be replaced between two steps
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    {
      const Image& target = copy.out.image();
      SharedLock lock(target.mutex);
      if (!is_untouched(target)) return false;
    }
    RK_TRY_ASSIGN(const InodeRecord from, swaps_.tree.get(copy.in.ino()));
    RK_TRY(settle_terms(copy));
    RK_TRY(enforce(copy, state_rule(copy.in.ino(), from, copy.key_before == copy.key)));
    // Only a part of the disk's file: copied as bytes. Fast create replaces the file by its disk when it is complete.
    if (copy.fast_create && copy.offset_out != 0) return false;
    RK_TRY_ASSIGN(const bool started, start_once(copy, from));
    if (started) return true;
  }
  return false;
}

// False if the source or the target has changed meanwhile.
Result<bool> Copies::start_once(Copy& copy, const InodeRecord& from) {
  Stitch stitch;
  stitch.source = copy.in.ino();
  {
    // Exclusive, so that no write to the source is in progress when its content is frozen.
    Image& source = copy.in.image();
    UniqueLock lock(source.mutex);
    stitch.base = std::make_shared<const blocks::BaseRef>(source.top);
  }
  if (stitch.base->layer()->made_as().key != copy.key_before) return false;
  // The frozen content cannot change, so no lock is held while the format reader works.
  if (copy.fast_create && from.image.disk != names::DiskState::disk) {
    const auto inside = FastCreate::look_inside(stitch.base->layer());
    if (!inside && inside.error().code == Errc::wrong_medium) return fail(enforce(copy, fail(inside.error())).error());
    RK_TRY_ASSIGN(stitch.inside, inside);
  }
  RK_TRY(charge(copy, stitch));
  return attach(copy, from, stitch);
}

// A replica counts as what it is going to store, from the start, so that it is refused at once or not at all. The kernel
// cuts a copy of a whole image: after a piece of its largest size, more is coming.
Status Copies::charge(const Copy& copy, Stitch& stitch) {
  constexpr std::uint64_t kLargestPiece = (std::uint64_t{4} << 30) - 4096;
  const std::shared_ptr<blocks::Layer>& base = stitch.base->layer();
  const bool clones = base->made_as().key == copy.key && !stitch.inside.is_wrapped();
  if (!quotas_.is_used() || clones) return {};
  stitch.charged_to = stitch.inside.is_wrapped() ? stitch.inside.size
                      : copy.size < kLargestPiece ? copy.offset_out + copy.size
                                                  : std::max(base->size(), copy.offset_out + copy.size);
  RK_TRY_ASSIGN(const auto need, replication::space_needed_over(swaps_.store.layers(), base->id(), stitch.charged_to, stitch.inside.format));
  // The target's old content goes.
  RK_TRY_ASSIGN(const std::uint64_t freed, quotas_.bytes_of(copy.out.ino()));
  auto charged = quotas_.charge_image(copy.out.image().quotas, copy.out.ino(), {need.most - std::min(need.most, freed), 0});
  if (!charged && charged.error().code == Errc::over_quota) return enforce(copy, fail(charged.error()));
  if (!charged) return fail(charged.error());
  stitch.charged = std::make_shared<const quota::Charge>(std::move(*charged));
  return {};
}

// Gives the target a layer over the source's layer, with the piece's range taken from it.
Result<bool> Copies::attach(Copy& copy, const InodeRecord& from, Stitch& stitch) {
  Image& image = copy.out.image();
  RK_TRY_ASSIGN(LayerSwap swap, LayerSwap::prepare(swaps_, copy.key));
  stitch.held = std::make_shared<const HeldReplication>(swaps_.filler, swap.layer());
  {
    UniqueLock lock(image.mutex);
    RK_TRY_ASSIGN(const bool attached, put_over(image, copy, from, stitch, swap));
    if (!attached) return false;
  }
  announce_permissions(image, observer_);
  {
    Lock lock(copy.out.mutex);
    copy.out.stitch = stitch;
    if (declassifies(copy)) copy.out.declassified = stitch.source;
  }
  if (!copy.placed) RK_TRY(go_on(copy, stitch));
  return true;
}

Result<bool> Copies::put_over(Image& image, Copy& copy, const InodeRecord& from, Stitch& stitch, LayerSwap& swap) {
  // Another handle may have written to the target since it was examined.
  if (!is_untouched(image)) return false;
  const std::shared_ptr<blocks::Layer>& base = stitch.base->layer();
  const bool wrapped = stitch.inside.is_wrapped();
  const std::uint64_t size_now = image.truncations.pending() ? 0 : image.top->size();
  LayerSwap::Copied copied{stitch.source, base, stitch.inside};
  // A piece that starts at 0 of an empty target: the layer starts as the source. Otherwise it starts with the target's
  // current size, and the piece's range is taken from the source.
  copied.from_base = wrapped || (copy.offset_out == 0 && size_now == 0);
  copied.size = wrapped ? stitch.inside.size : copied.from_base ? copy.size : size_now;
  copied.asker = copy.caller.uid;
  // Evaluated before the transaction, because a layer must not be called within one.
  const bool is_whole = copied.from_base && !wrapped && copied.size == base->size();
  std::optional<Event> declassified;
  if (declassifies(copy)) declassified = declassification(copy);
  bool moved_on = false;
  const Status swapped = swap.copy(image, copied, [&](WriteTxn& txn, InodeRecord& inode) -> Status {
    RK_TRY_ASSIGN(const InodeRecord source, Tree::get(txn, stitch.source));
    moved_on = source.image.layer != base->id();
    if (moved_on) return fail(Errc::busy, "the source was written to");
    if (!wrapped) stitch.findings = source.image.findings;
    stitch.changes = image.changes.load();
    names::ImageRecord& record = inode.image;
    const bool transforms = record.state == ImageState::replicating;
    // A copy of the whole source has its findings. For a copy of a part they come with the last piece (take_findings).
    record.findings = is_whole ? stitch.findings : std::nullopt;
    record.lineage = names::Lineage{from.image.id, copy.key_before, now(), transforms ? 0 : now()};
    if (from.image.type != names::ImageType::none) record.type = from.image.type;
    const bool is_disk = copy.fast_create || from.image.disk == names::DiskState::disk;
    record.disk = is_disk ? names::DiskState::disk : names::DiskState::as_stored;
    inode.modified = inode.changed = now();
    if (declassified) RK_TRY(swaps_.audit.add(txn, *declassified));
    return swaps_.tree.inherit_xattr(txn, stitch.source, image.ino, kDescription);
  });
  if (moved_on) return false;
  RK_TRY(swapped);
  copy.placed = copied.from_base;
  return true;
}

// --- further pieces --------------------------------------------------------------------------------------------

// The part within the target's size becomes "base"; the part beyond extends the target.
Status Copies::go_on(Copy& copy, const Stitch& stitch) {
  if (stitch.inside.is_wrapped()) return {};
  const std::uint64_t end = copy.offset_out + copy.size;
  const std::uint64_t uncharged = stitch.charged && end > stitch.charged_to ? std::min(copy.size, end - stitch.charged_to) : 0;
  RK_TRY_ASSIGN(const quota::Charge charged, quotas_.charge_image(copy.out.image().quotas, copy.out.ino(), {uncharged, 0}));
  return content_.with_writable(copy.out.image(), [&](const std::shared_ptr<blocks::Layer>& layer) -> Status {
    blocks::Layer& base = *stitch.base->layer();
    const blocks::Touch touched{blocks::Touch::Kind::copied, copy.out.ino()};
    const std::uint64_t from = copy.offset_out;
    const std::uint64_t to = from + copy.size;
    if (layer->base().get() != &base) return copy_bytes_to(*layer, base, from, to, touched);
    if (from > layer->size()) RK_TRY(layer->resize(from, touched));
    const std::uint64_t within = std::min(to, layer->size());
    if (from < within) {
      const std::uint64_t block = layer->block_size();
      const std::uint64_t first = std::min(within, (from + block - 1) / block * block);
      const std::uint64_t last = std::max(first, within / block * block);
      RK_TRY(copy_bytes_to(*layer, base, from, first, touched));
      if (first < last) RK_TRY(layer->take_from_base(first, last - first, touched));
      RK_TRY(copy_bytes_to(*layer, base, last, within, touched));
    }
    return to > within ? layer->extend_over_base(to, touched) : Status{};
  });
}

Status Copies::end(OpenFile& out) {
  std::optional<Stitch> stitch;
  {
    Lock lock(out.mutex);
    stitch = std::exchange(out.stitch, std::nullopt);
  }
  if (!stitch) return {};
  return caught([&] { return take_findings(out.image(), *stitch); });
}

// A copy in pieces that covered the whole source, without a write in between, has the source's digest.
Status Copies::take_findings(Image& image, const Stitch& stitch) {
  const std::shared_ptr<blocks::Layer>& base = stitch.base->layer();
  if (!stitch.findings || stitch.copied < base->size()) return {};
  UniqueLock lock(image.mutex);  // no change is in progress
  const std::shared_ptr<blocks::Layer> top = image.top;
  if (image.changes.load() != stitch.changes || top->base() != base || top->size() != base->size()) return {};
  WriteTxn txn(swaps_.store.catalog());
  RK_TRY_ASSIGN(InodeRecord inode, Tree::get(txn, image.ino));
  if (inode.image.findings) return {};
  inode.image.findings = stitch.findings;
  Tree::put(txn, image.ino, inode);
  RK_TRY(txn.commit());
  return {};
}

// --- bytes -----------------------------------------------------------------------------------------------------

// Copies a part of an image, or to another offset, or to an image with its own content.
Status Copies::copy_bytes(const Copy& copy) {
  RK_TRY(record_declassification(copy));
  std::vector<std::byte> buffer(std::min<std::uint64_t>(kCopyPiece, copy.size));
  for (std::uint64_t done = 0; done < copy.size;) {
    const ByteSpan part = ByteSpan(buffer).first(std::min<std::uint64_t>(buffer.size(), copy.size - done));
    RK_TRY_ASSIGN(const std::size_t got, content_.read(copy.in.image(), copy.offset_in + done, part, copy.in.boot.get()));
    if (got == 0) return {};
    RK_TRY(content_.write(copy.out.image(), copy.offset_out + done, part.first(got)));
    done += got;
  }
  return {};
}

}  // namespace rekeyfs::images
