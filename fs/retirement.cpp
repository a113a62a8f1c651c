#include "fs/retirement.h"

#include <array>
#include <chrono>
#include <cstddef>
#include <utility>

#include <sys/random.h>

#include "fs/fuse_api.h"
#include "fs/program.h"

namespace rekeyfs::fs {
namespace {

constexpr auto kLongestLookup = std::chrono::seconds(5);

// Random, so that no other process looks it up by accident, and valid only during the retirement.
std::string made_up_name() {
  std::array<std::byte, 16> random;
  if (::getrandom(random.data(), random.size(), 0) != static_cast<ssize_t>(random.size())) return {};
  return ".rekeyfs-retired-" + to_hex(random);
}

}  // namespace

void Retirement::start(fuse_session* session, std::string mountpoint) {
  session_ = session;
  mountpoint_ = std::move(mountpoint);
}

bool Retirement::retire(Ino image) {
  Lock turn(one_at_a_time_);
  const std::string name = made_up_name();
  const std::string path = mountpoint_ + "/" + name;
  {
    Lock lock(mutex_);
    ++generations_[image];
    name_ = name;
    image_ = image;
    asked_ = false;
  }
  any_.store(true);
  if (!name.empty()) run({"test", "-e", path}, kLongestLookup);
  {
    Lock lock(mutex_);
    name_.clear();
    if (!asked_) return false;
  }
  fuse_lowlevel_notify_inval_entry(session_, kRootIno.value(), name.c_str(), name.size());
  return true;
}

Ino Retirement::image_called(Ino parent, std::string_view name) {
  if (!any_.load(std::memory_order_relaxed) || parent != kRootIno) return {};
  Lock lock(mutex_);
  if (name_.empty() || name != name_) return {};
  asked_ = true;
  return image_;
}

std::uint64_t Retirement::generation_of(Ino image) {
  if (!any_.load(std::memory_order_relaxed)) return 0;
  Lock lock(mutex_);
  const auto found = generations_.find(image);
  return found == generations_.end() ? 0 : found->second;
}

}  // namespace rekeyfs::fs
