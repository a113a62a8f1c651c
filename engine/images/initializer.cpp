#include "engine/images/initializer.h"

#include <algorithm>
#include <new>
#include <utility>

#include "engine/base/exceptions.h"
#include "engine/base/log.h"
#include "engine/formats/format.h"
#include "engine/types/attributes.h"
#include "engine/types/image_state.h"

namespace rekeyfs::images {

using catalog::Table;
using catalog::make_key;
using names::InodeRecord;

namespace {

using namespace std::chrono_literals;
constexpr auto kLeftAlone = 2s;
constexpr std::chrono::steady_clock::duration kFirstPause = 1s, kLongestPause = 30s;
constexpr int kRest = 9;  // rests this many times as long as an attempt took, to limit the load of a large image
constexpr int kNice = 19;
constexpr std::size_t kPiece = 1u << 20;
constexpr std::size_t kScanStep = 1000;  // records per step, during which writers wait

bool needs_findings(const InodeRecord& inode) {
  return inode.kind == NodeKind::image && inode.links > 0 && !inode.image.findings &&
         (inode.image.state == ImageState::normal || inode.image.state == ImageState::normal_uninitialized);
}

// Whether the error is transient.
bool passes(const Error& error) {
  return error.code == Errc::busy || error.code == Errc::key_revoked || error.code == Errc::no_space || error.code == Errc::no_memory;
}

// The layer's blocks are still being transformed; reading all of them now would slow down other readers.
bool is_over_replication(const blocks::Layer& layer) {
  for (auto below = layer.base(); below; below = below->base())
    if (below->keeps_reads()) return true;
  return false;
}

}  // namespace

Initializer::Initializer(store::Store& store, const names::Tree& tree)
    : store_(store), tree_(tree), background_("initializer", kNice) {}

Status Initializer::start() {
  return background_.start([this] { return step(); });
}

void Initializer::touched(Ino ino) {
  Lock lock(mutex_);
  schedule({ino, Clock::now() + kLeftAlone});
}

void Initializer::completed(Ino ino) {
  const auto inode = tree_.get(ino);
  if (!inode || !needs_findings(*inode)) return;
  Lock lock(mutex_);
  if (!due_.contains(ino)) schedule({ino, Clock::now()});
}

void Initializer::written(Ino ino) {
  Lock lock(mutex_);
  if (examining_ == ino) examining_ = Ino{};
}

void Initializer::begin(Ino ino) {
  Lock lock(mutex_);
  examining_ = ino;
}

void Initializer::forget(Ino ino) {
  Lock lock(mutex_);
  unschedule(ino);
}

bool Initializer::is_awaited(Ino ino) const {
  Lock lock(mutex_);
  const auto found = due_.find(ino);
  return found != due_.end() && found->second.pause == 0s;
}

void Initializer::schedule(const Visit& visit) noexcept {
  try {
    decltype(order_) place{{visit.at, visit.ino}};  // allocates memory, so it comes first
    const auto [found, is_new] = due_.try_emplace(visit.ino, visit);
    if (!is_new) order_.erase({found->second.at, visit.ino});
    found->second = visit;
    order_.merge(place);
  } catch (const std::bad_alloc&) {
    must_look_ = true;
  }
  background_.wake();
}

void Initializer::unschedule(Ino ino) {
  const auto found = due_.find(ino);
  if (found == due_.end()) return;
  order_.erase({found->second.at, ino});
  due_.erase(found);
}

Background::Duration Initializer::step() {
  if (must_look()) {
    const Status found = find_unfinished();
    if (!found) log::warn("cannot list the images to examine: {}", describe(found.error()));
    if (must_look()) return kFirstPause;
  }
  const auto [due, wait] = next_visit();
  if (!due) return wait;
  visit(*due);
  return Background::Duration::zero();
}

void Initializer::visit(const Visit& due) {
  const Clock::time_point begun = Clock::now();
  const Status status = caught([&] { return initialize(due.ino); });
  if (status) reported_.reset();
  else if (passes(status.error())) postpone(due, Clock::now() - begun);
  if (!status) report(due.ino, status.error());
}

void Initializer::postpone(const Visit& failed, Clock::duration took) {
  Clock::duration pause = std::clamp(2 * failed.pause, kFirstPause, kLongestPause);
  pause = std::max(pause, kRest * took);
  Lock lock(mutex_);
  if (!due_.contains(failed.ino)) schedule({failed.ino, Clock::now() + pause, pause});
}

void Initializer::report(Ino ino, const Error& error) {
  if (error.code == Errc::stale) return;        // deleted
  if (error.code == Errc::busy) return;         // retried later
  if (error.code == Errc::key_revoked) return;  // the audit log records the key; it may have many images
  if (passes(error) && std::exchange(reported_, error.code) == error.code) return;
  log::warn("cannot examine {}: {}{}", tree_.path_of(ino), describe(error),
            passes(error) ? "; rekeyfs tries again" : "");
}

bool Initializer::must_look() const {
  Lock lock(mutex_);
  return must_look_;
}

Status Initializer::find_unfinished() {
  const std::string prefix = make_key(Table::inode);
  std::string from = prefix;
  {
    Lock lock(mutex_);
    must_look_ = false;
  }
  for (bool more = true; more;) {
    std::size_t seen = 0;
    more = false;
    const Status status = caught([&] {
      return store_.catalog().scan(prefix, from, [&](std::string_view key, std::string_view value) {
        if (seen++ == kScanStep) {
          from = key;
          more = true;
          return false;
        }
        const auto inode = InodeRecord::decode(value);
        if (inode && needs_findings(*inode)) touched(Ino{Reader(key.substr(1)).get_be64()});
        return true;
      });
    });
    if (!status && status.error().code == Errc::no_memory) {
      Lock lock(mutex_);
      must_look_ = true;
    }
    RK_TRY(status);
  }
  return {};
}

std::pair<std::optional<Initializer::Visit>, Initializer::Clock::duration> Initializer::next_visit() {
  Lock lock(mutex_);
  if (order_.empty()) return {std::nullopt, Background::kUntilWoken};
  const auto wait = order_.begin()->first - Clock::now();
  if (wait > 0s) return {std::nullopt, wait};
  const Visit visit = due_.at(order_.begin()->second);
  unschedule(visit.ino);
  return {visit, Clock::duration::zero()};
}

bool Initializer::is_wanted(Ino ino) const {
  Lock lock(mutex_);
  return background_.is_running() && examining_ == ino && !due_.contains(ino);
}

Status Initializer::initialize(Ino ino) {
  begin(ino);  // before anything is read
  RK_TRY_ASSIGN(InodeRecord seen, tree_.get(ino));
  if (seen.image.disk == names::DiskState::wanted) {
    const Status became = disk_wanted_(ino);
    // Wrong_medium: refused, so it stays as stored.
    if (!became && became.error().code != Errc::wrong_medium) return became;
    RK_TRY_ASSIGN(seen, tree_.get(ino));
  }
  if (!needs_findings(seen)) return {};
  if (is_running_(ino)) return fail(Errc::busy, "a virtual machine has it open");
  RK_TRY_ASSIGN(const std::shared_ptr<blocks::Layer> layer, store_.layers().get(seen.image.layer));
  if (is_over_replication(*layer)) return fail(Errc::busy, "the source of this clone is still being replicated");
  std::optional<names::Findings> findings = inherited(*layer);
  if (!findings) {
    RK_TRY_ASSIGN(findings, examine(ino, seen, *layer));
  }
  if (!findings) return {};

  catalog::WriteTxn txn(store_.catalog());
  RK_TRY_ASSIGN(InodeRecord inode, names::Tree::get(txn, ino));
  // Written while it was read: it is scheduled again when the writer closes it. (Times prove nothing, because users can
  // set them.)
  if (inode.image.layer != seen.image.layer || !is_wanted(ino) || !needs_findings(inode)) return {};
  inode.image.findings = *findings;
  inode.image.state = ImageState::normal;
  names::Tree::put(txn, ino, inode);
  RK_TRY(txn.commit());
  return {};
}

std::optional<names::Findings> Initializer::inherited(const blocks::Layer& layer) const {
  const std::shared_ptr<blocks::Layer> base = layer.base();
  if (!base || !layer.is_all_base() || layer.size() != base->size()) return std::nullopt;
  const auto record = store_.layers().record_of(base->id());
  const auto source = record && record->owner ? tree_.get(record->owner) : fail(Errc::stale);
  return source && source->image.layer == base->id() ? source->image.findings : std::nullopt;
}

Result<std::optional<names::Findings>> Initializer::examine(Ino ino, const InodeRecord& inode, blocks::Layer& layer) {
  const std::uint64_t size = layer.size();
  std::vector<std::byte> buffer(static_cast<std::size_t>(std::min<std::uint64_t>(size, kPiece)));
  names::Findings findings;
  crypto::Sha256 hash;
  findings.format = formats::name_of(formats::Format::raw);
  if (inode.image.disk != names::DiskState::disk) {
    RK_TRY_ASSIGN(const formats::Format format, formats::detect_format(layer));
    findings.format = formats::name_of(format);
  }
  for (std::uint64_t offset = 0; offset < size; offset += buffer.size()) {
    if (!is_wanted(ino)) return std::optional<names::Findings>{};
    const ByteSpan part = ByteSpan(buffer).first(static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), size - offset)));
    RK_TRY(layer.read(offset, part));
    hash.update(part);
  }
  findings.digest = hash.finish();
  return std::optional(std::move(findings));
}

}  // namespace rekeyfs::images
