#include "fs/hot_images.h"

#include <algorithm>

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "engine/base/log.h"
#include "fs/hot_content.h"

namespace rekeyfs::fs {
namespace {

using namespace std::chrono_literals;

constexpr auto kLately = 10min;             // a second open within this time makes an image popular
constexpr auto kRetry = 2s;                 // delay after an image could not be made hot
// How long to wait for a release, which the kernel sends some time after close(2) has returned.
constexpr auto kReleaseDelay = 20ms;
constexpr auto kReadsUnderWay = 20ms;       // reads in progress from a withdrawn copy end within this time
constexpr auto kLookAround = 1s;            // interval of the search for idle copies
constexpr std::uint64_t kMaxCopies = 128;  // each one keeps a descriptor
constexpr int kNice = 10;                   // like the filler of replicas

}  // namespace

// The content of an image in memory. Members are destroyed in the right order: first the kernel's number, then the
// bytes.
struct HotImages::Copy {
  std::uint64_t bytes;  // bytes of memory used
  HotFile file;
  BackingFile backing;
};

// The state of an image that is, or recently was, open. Guarded by HotImages::mutex_.
struct HotImages::Image {
  unsigned hot = 0;     // uses that read the copy
  unsigned usual = 0;   // all other uses
  unsigned closed = 0;  // uses of either kind with a closed descriptor
  CopyPtr copy;
  bool popular = false;                          // opened twice within kLately
  bool awaited = false;                          // a copy is requested or being made
  bool spoiled = false;                          // the content has changed since then: the copy is useless
  std::optional<Clock::time_point> last_opened;  // last open for reading
  Clock::time_point idle_since;                  // when the last use of the copy ended
  Clock::time_point not_before;                  // no attempt to make it hot before this time

  unsigned uses() const { return hot + usual; }
  bool is_to_be_hot() const { return popular && uses() == 0 && !copy && !awaited && Clock::now() >= not_before; }
  bool looks_closed() const { return closed >= uses(); }
};

HotImages::Use::~Use() {
  if (image_) owner_->leave(*this);
}

void HotImages::Use::note_opened() const {
  if (image_ && purpose_ == Purpose::read && !backing_) owner_->note_opened(*this);
}

void HotImages::Use::note_closed() const {
  if (image_) owner_->note_closed(*this);
}

HotImages::~HotImages() {
  stop();
}

void HotImages::start(int session) {
  if (options_.hot_memory == 0) return;
  auto memory = HotMemory::create(options_.hot_memory);
  if (!memory) return log::warn("the option hot has no effect: {}", describe(memory.error()));
  session_ = session;
  memory_.emplace(std::move(*memory));
  thread_ = std::thread([this] { run(); });
}

void HotImages::stop() {
  {
    Lock lock(mutex_);
    stopping_ = true;
  }
  work_.notify_all();
  if (thread_.joinable()) thread_.join();
  Lock lock(mutex_);
  for (auto& [ino, image] : images_) image->copy.reset();
  images_.clear();
}

// --- who has it open ---------------------------------------------------------------------------------------------

HotImages::ImagePtr HotImages::image_for(Ino ino) {
  ImagePtr& image = images_[ino];
  if (!image) {
    image = std::make_shared<Image>();
    if (images_.size() == 1) work_.notify_one();  // the thread waits without a timeout while there are no images
  }
  return image;
}

HotImages::CopyPtr HotImages::take_copy(Image& image) {
  if (image.copy) used_ -= image.copy->bytes;
  return std::exchange(image.copy, nullptr);
}

Result<HotImages::Use> HotImages::enter(Ino ino, Purpose purpose) {
  Use use;
  if (!is_enabled()) return use;
  CopyPtr outdated;  // freed after the lock is released
  const auto deadline = Clock::now() + kReleaseDelay;
  Lock lock(mutex_);
  ImagePtr image = image_for(ino);
  const auto in_the_way = [&] { return purpose == Purpose::change ? image->hot > 0 : image->copy && image->usual > 0; };
  while (in_the_way() && image->looks_closed()) {
    const auto left = deadline - Clock::now();
    if (left <= left.zero()) break;
    released_.wait_for(mutex_, left);
    image = image_for(ino);  // a new object if the copy was withdrawn meanwhile
  }
  if (purpose == Purpose::change) {
    if (image->hot > 0)
      return fail(Errc::busy, "the image is hot and open for reading: write to it after its readers have closed it");
    outdated = take_copy(*image);
    image->spoiled = true;
  } else if (image->copy && image->usual == 0) {
    use.backing_ = image->copy->backing.number();
  }
  ++(use.backing_ ? image->hot : image->usual);
  use.owner_ = this;
  use.ino_ = ino;
  use.purpose_ = purpose;
  use.image_ = std::move(image);
  return use;
}

void HotImages::leave(const Use& use) {
  Lock lock(mutex_);
  Image& image = *use.image_;
  --(use.backing_ ? image.hot : image.usual);
  if (use.looks_closed_) --image.closed;
  if (use.backing_) image.idle_since = Clock::now();
  released_.notify_all();
  if (image.is_to_be_hot()) {
    image.awaited = true;
    image.spoiled = false;
    wanted_.emplace_back(use.ino_, use.image_);
    work_.notify_one();
  }
  if (image.uses() > 0 || image.copy || image.awaited || image.last_opened) return;
  const auto found = images_.find(use.ino_);
  if (found != images_.end() && found->second == use.image_) images_.erase(found);
}

void HotImages::note_opened(const Use& use) {
  Lock lock(mutex_);
  Image& image = *use.image_;
  const auto now = Clock::now();
  image.popular = image.last_opened && now - *image.last_opened < kLately;
  image.last_opened = now;
}

void HotImages::note_closed(const Use& use) {
  Lock lock(mutex_);
  if (!std::exchange(use.looks_closed_, true)) ++use.image_->closed;
}

// Removes the copy from its image. If it is in use, the caller has to keep it until it cannot be read any more. Later
// opens of the image do not share it.
HotImages::CopyPtr HotImages::take_back(Ino ino) {
  CopyPtr copy;  // freed after the lock is released
  Lock lock(mutex_);
  const auto found = images_.find(ino);
  if (found == images_.end()) return nullptr;
  Image& image = *found->second;
  image.spoiled = true;
  copy = take_copy(image);
  if (!copy || image.hot == 0) return nullptr;
  images_.erase(found);
  return copy;
}

void HotImages::withdraw(const std::set<Ino>& images) {
  std::vector<CopyPtr> read;
  for (const Ino ino : images) {
    CopyPtr copy = take_back(ino);
    if (!copy) continue;
    read.push_back(std::move(copy));
    if (!retirement_.retire(ino))
      log::warn("node {} was hot and open: its readers get end-of-file instead of an error", ino.value());
  }
  if (!read.empty()) std::this_thread::sleep_for(kReadsUnderWay);
}

void HotImages::withdraw_all() {
  std::set<Ino> hot;
  {
    Lock lock(mutex_);
    for (const auto& [ino, image] : images_)
      if (image->copy) hot.insert(ino);
  }
  withdraw(hot);
}

// --- making copies, and forgetting them --------------------------------------------------------------------------

void HotImages::run() {
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kNice);
  Lock lock(mutex_);
  while (!stopping_) {
    if (!wanted_.empty()) {
      const auto [ino, image] = wanted_.front();
      wanted_.pop_front();
      mutex_.unlock();
      make_hot(ino, image);
      mutex_.lock();
    } else if (images_.empty()) {
      work_.wait(mutex_);
    } else {
      std::vector<CopyPtr> idle = forget_idle();
      mutex_.unlock();
      idle.clear();
      mutex_.lock();
      if (wanted_.empty() && !stopping_) work_.wait_for(mutex_, kLookAround);
    }
  }
}

void HotImages::make_hot(Ino ino, const ImagePtr& image) {
  Result<CopyPtr> made = copy_of(ino, image);
  CopyPtr useless;  // freed after the lock is released
  Lock lock(mutex_);
  image->awaited = false;
  if (!made) {
    log::debug("cannot make node {} hot: {}", ino.value(), describe(made.error()));
    image->not_before = Clock::now() + kRetry;
    return;
  }
  image->copy = std::move(*made);
  if (image->spoiled) {
    useless = take_copy(*image);
    return;
  }
  image->idle_since = Clock::now();
  log::info("node {} is hot: {} bytes in memory", ino.value(), image->copy->bytes);
}

Result<HotImages::CopyPtr> HotImages::copy_of(Ino ino, const ImagePtr& image) {
  RK_TRY_ASSIGN(const std::string status, engine_.names().getxattr(ino, "user.rekeyfs.status"));
  if (status != name_of(ImageState::normal)) return fail(Errc::busy, "its status is " + status);
  RK_TRY_ASSIGN(const OpenFilePtr file, engine_.files().open(ino, O_RDONLY, kOperator));
  RK_TRY_ASSIGN(const Attributes attributes, engine_.names().getattr(ino));
  RK_TRY_ASSIGN(const std::uint64_t bytes, memory_needed(engine_, *file, attributes.size, memory_->page()));
  RK_TRY(reserve(bytes));
  Result<CopyPtr> filled = fill(*file, attributes.size, bytes, image);
  if (!filled) {
    Lock lock(mutex_);
    used_ -= bytes;
  }
  return filled;
}

Result<HotImages::CopyPtr> HotImages::fill(OpenFile& file, std::uint64_t size, std::uint64_t bytes, const ImagePtr& image) {
  const auto goes_on = [&] {
    Lock lock(mutex_);
    return !image->spoiled && !stopping_;
  };
  RK_TRY_ASSIGN(HotFile memory, memory_->make_file(size));
  // Before decrypting anything, because the kernel may refuse it.
  RK_TRY_ASSIGN(BackingFile backing, BackingFile::create(session_, memory.descriptor()));
  RK_TRY(copy_content(engine_, file, memory, goes_on));
  return CopyPtr(new Copy{bytes, std::move(memory), std::move(backing)});
}

// Makes room by dropping the copies that have been idle longest.
Status HotImages::reserve(std::uint64_t bytes) {
  std::vector<CopyPtr> dropped;  // freed after the lock is released
  Lock lock(mutex_);
  std::vector<Image*> idle;
  std::uint64_t copies = 0, idle_bytes = 0;
  for (const auto& [ino, image] : images_) {
    if (!image->copy) continue;
    ++copies;
    if (image->hot > 0) continue;
    idle.push_back(image.get());
    idle_bytes += image->copy->bytes;
  }
  const std::uint64_t in_use = used_ - idle_bytes, most = options_.hot_memory;
  if (bytes > most || in_use > most - bytes || copies - idle.size() >= kMaxCopies)
    return fail(Errc::no_memory, "its " + std::to_string(bytes) + " bytes do not fit into the memory left for hot images");
  std::sort(idle.begin(), idle.end(), [](const Image* a, const Image* b) { return a->idle_since < b->idle_since; });
  for (auto next = idle.begin(); used_ > most - bytes || copies >= kMaxCopies; ++next, --copies)
    dropped.push_back(take_copy(**next));
  used_ += bytes;
  return {};
}

std::vector<HotImages::CopyPtr> HotImages::forget_idle() {
  std::vector<CopyPtr> dropped;
  const auto now = Clock::now();
  for (auto next = images_.begin(); next != images_.end();) {
    const auto current = next++;
    Image& image = *current->second;
    if (image.copy && image.hot == 0 && now - image.idle_since >= options_.hot_idle) {
      log::info("node {} is no longer hot: it is not open", current->first.value());
      dropped.push_back(take_copy(image));
    }
    const bool is_in_use = image.copy || image.awaited || image.uses() > 0;
    if (!is_in_use && now - image.last_opened.value_or(now) >= kLately) images_.erase(current);
  }
  return dropped;
}

}  // namespace rekeyfs::fs
