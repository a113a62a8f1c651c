#include "fs/handles.h"

#include <cstdio>
#include <random>
#include <set>

namespace rekeyfs::fs {
namespace {

std::string random_token() {
  std::random_device device;  // of the operating system
  char text[4 * 8 + 1];
  std::snprintf(text, sizeof text, "%08x%08x%08x%08x", device(), device(), device(), device());
  return text;
}

}  // namespace

std::uint64_t HandleTable::add_file(std::unique_ptr<FileHandle> handle) {
  const auto number = reinterpret_cast<std::uint64_t>(handle.get());
  Lock lock(mutex_);
  files_.emplace(number, std::move(handle));
  return number;
}

std::string DirectoryHandle::draw_token(Ino directory) {
  Lock lock(mutex_);
  token_ = random_token();
  named_ = directory;
  return token_;
}

std::optional<Ino> DirectoryHandle::directory_with(std::string_view token) const {
  Lock lock(mutex_);
  return !token_.empty() && token_ == token ? std::optional(named_) : std::nullopt;
}

std::optional<Ino> HandleTable::directory_with(std::string_view token) {
  Lock lock(mutex_);
  for (const auto& [number, handle] : directories_)
    if (const auto directory = handle->directory_with(token)) return directory;
  return std::nullopt;
}

std::uint64_t HandleTable::add_directory() {
  auto handle = std::make_unique<DirectoryHandle>();
  const auto number = reinterpret_cast<std::uint64_t>(handle.get());
  Lock lock(mutex_);
  directories_.emplace(number, std::move(handle));
  return number;
}

void HandleTable::remove_file(std::uint64_t handle) {
  std::unique_ptr<FileHandle> closed;  // destroyed after the lock is released
  Lock lock(mutex_);
  const auto found = files_.find(handle);
  closed = std::move(found->second);
  files_.erase(found);
}

void HandleTable::remove_directory(std::uint64_t handle) {
  Lock lock(mutex_);
  directories_.erase(handle);
}

std::vector<Ino> HandleTable::open_for_writing() {
  std::set<Ino> images;
  Lock lock(mutex_);
  for (const auto& [number, handle] : files_)
    if (handle->writes()) images.insert(handle->ino());
  return {images.begin(), images.end()};
}

}  // namespace rekeyfs::fs
