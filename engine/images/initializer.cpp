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
constexpr unsigned kThreads = 2;  // so that a user whose image waits for its disk or format does not delay another one
constexpr std::chrono::steady_clock::duration kSlice = 100ms;
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
  return background_.start([this] { return step(); }, kThreads);
}

void Initializer::touched(Ino ino) {
  Lock lock(mutex_);
  turns_.remove(ino);
  schedule({ino, Clock::now() + kLeftAlone});
}

void Initializer::completed(Ino ino) {
  const auto inode = tree_.get(ino);
  if (!inode || !needs_findings(*inode)) return;
  Lock lock(mutex_);
  if (due_.contains(ino)) return;
  turns_.remove(ino);
  schedule({ino, Clock::now()});
}

void Initializer::written(Ino ino) {
  Lock lock(mutex_);
  turns_.remove(ino);
}

void Initializer::forget(Ino ino) {
  Lock lock(mutex_);
  turns_.remove(ino);
  unschedule(ino);
}

bool Initializer::is_awaited(Ino ino) const {
  Lock lock(mutex_);
  if (const auto found = due_.find(ino); found != due_.end()) return found->second.pause == 0s;
  const auto examination = turns_.find(ino);
  return examination && examination->pause == 0s && !examination->has_begun;
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
  const Clock::duration wait = begin_due();
  ExaminationTurns::Item examination;
  {
    Lock lock(mutex_);
    examination = turns_.take();
    if (!examination) return wait;
    examination->has_begun = true;
  }
  work_on(examination);
  return Background::Duration::zero();
}

void Initializer::work_on(const ExaminationTurns::Item& examination) {
  const Clock::time_point begun = Clock::now();
  const Result<bool> ended = caught([&] { return examine(*examination); });
  if (!ended && passes(ended.error()) && is_wanted(*examination)) postpone(*examination, Clock::now() - begun);
  if (!ended) report(examination->ino, ended.error());
  Lock lock(mutex_);
  if (ended && *ended) reported_.reset();
  if (ended && !*ended) turns_.give_back(examination, examination->part->size - examination->part->offset);
  else turns_.end(examination);
}

void Initializer::postpone(const Examination& failed, Clock::duration took) {
  Clock::duration pause = std::clamp(2 * failed.pause, kFirstPause, kLongestPause);
  pause = std::max(pause, kRest * took);
  Lock lock(mutex_);
  if (!due_.contains(failed.ino)) schedule({failed.ino, Clock::now() + pause, pause});
}

void Initializer::report(Ino ino, const Error& error) {
  if (error.code == Errc::stale) return;        // deleted
  if (error.code == Errc::busy) return;         // retried later
  if (error.code == Errc::key_revoked) return;  // the audit log records the key; it may have many images
  {
    Lock lock(mutex_);
    if (passes(error) && std::exchange(reported_, error.code) == error.code) return;
  }
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

Initializer::Clock::duration Initializer::begin_due() {
  for (const Visit& due : take_due()) begin(due);
  Lock lock(mutex_);
  return order_.empty() ? Background::kUntilWoken : std::max<Clock::duration>(order_.begin()->first - Clock::now(), 0s);
}

std::vector<Initializer::Visit> Initializer::take_due() {
  std::vector<Visit> visits;
  const Clock::time_point now = Clock::now();
  Lock lock(mutex_);
  while (!order_.empty() && order_.begin()->first <= now) {
    visits.push_back(due_.at(order_.begin()->second));
    unschedule(visits.back().ino);
  }
  return visits;
}

// An image that cannot be found has its turn, too, which then fails.
void Initializer::begin(const Visit& due) {
  const auto inode = tree_.get(due.ino);
  const auto sizes = inode ? store_.layers().sizes_of(inode->image.layer) : fail(Errc::stale);
  const Status begun = caught([&]() -> Status {
    const auto examination = std::make_shared<Examination>(Examination{.ino = due.ino, .user = inode ? inode->uid : 0, .pause = due.pause});
    Lock lock(mutex_);
    if (!due_.contains(due.ino)) turns_.add(examination, sizes ? sizes->content : 0);
    return {};
  });
  Lock lock(mutex_);
  if (!begun) must_look_ = true;  // out of memory
}

bool Initializer::is_wanted(const Examination& examination) const {
  Lock lock(mutex_);
  return background_.is_running() && turns_.find(examination.ino).get() == &examination;
}

Result<bool> Initializer::examine(Examination& examination) {
  const Ino ino = examination.ino;
  RK_TRY_ASSIGN(InodeRecord seen, tree_.get(ino));
  if (seen.image.disk == names::DiskState::wanted) {
    const Status became = disk_wanted_(ino);
    // Wrong_medium: refused, so it stays as stored.
    if (!became && became.error().code != Errc::wrong_medium) return fail(became.error());
    RK_TRY_ASSIGN(seen, tree_.get(ino));
  }
  if (!needs_findings(seen)) return true;
  if (is_running_(ino)) return fail(Errc::busy, "a virtual machine has it open");
  RK_TRY_ASSIGN(const std::shared_ptr<blocks::Layer> layer, store_.layers().get(seen.image.layer));
  if (is_over_replication(*layer)) return fail(Errc::busy, "the source of this clone is still being replicated");
  if (const auto findings = inherited(*layer)) {
    RK_TRY(record(examination, layer->id(), *findings));
    return true;
  }
  if (!examination.part || examination.part->layer != layer->id()) RK_TRY(begin_reading(examination, seen, *layer));
  RK_TRY_ASSIGN(const bool complete, read_slice(examination, *layer));
  if (!complete) return !is_wanted(examination);
  Examination::Part& part = *examination.part;
  part.findings.digest = part.hash.finish();
  RK_TRY(record(examination, layer->id(), part.findings));
  return true;
}

Status Initializer::record(const Examination& examination, LayerId layer, const names::Findings& findings) {
  catalog::WriteTxn txn(store_.catalog());
  RK_TRY_ASSIGN(InodeRecord inode, names::Tree::get(txn, examination.ino));
  // Written while it was read: it is scheduled again when the writer closes it. (Times prove nothing, because users can
  // set them.)
  if (inode.image.layer != layer || !is_wanted(examination) || !needs_findings(inode)) return {};
  inode.image.findings = findings;
  inode.image.state = ImageState::normal;
  names::Tree::put(txn, examination.ino, inode);
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

Status Initializer::begin_reading(Examination& examination, const InodeRecord& inode, blocks::Layer& layer) {
  auto part = std::make_unique<Examination::Part>();
  part->layer = layer.id();
  part->size = layer.size();
  part->findings.format = formats::name_of(formats::Format::raw);
  if (inode.image.disk != names::DiskState::disk) {
    RK_TRY_ASSIGN(const formats::Format format, formats::detect_format(layer));
    part->findings.format = formats::name_of(format);
  }
  examination.part = std::move(part);
  return {};
}

// Whether all was read.
Result<bool> Initializer::read_slice(Examination& examination, blocks::Layer& layer) {
  Examination::Part& part = *examination.part;
  const Clock::time_point end = Clock::now() + kSlice;
  std::vector<std::byte> buffer(static_cast<std::size_t>(std::min<std::uint64_t>(part.size - part.offset, kPiece)));
  while (part.offset < part.size) {
    if (Clock::now() >= end || !is_wanted(examination)) return false;
    const ByteSpan piece = ByteSpan(buffer).first(static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), part.size - part.offset)));
    RK_TRY(layer.read(part.offset, piece));
    part.hash.update(piece);
    part.offset += piece.size();
  }
  return true;
}

}  // namespace rekeyfs::images
