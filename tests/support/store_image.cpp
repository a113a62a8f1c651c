#include "tests/support/store_image.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <stdexcept>

namespace rekeyfs::test {
namespace {

namespace stdfs = std::filesystem;
constexpr std::size_t kPage = 4096;
constexpr std::string_view kReserve = "reserve";

class Fd {
 public:
  Fd(const std::string& path, int flags) : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0600)) {
    if (fd_ < 0) throw std::runtime_error(path + ": cannot be opened");
  }
  ~Fd() { ::close(fd_); }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  int get() const { return fd_; }

  std::string read(std::uint64_t offset, std::size_t size) const {
    std::string bytes(size, '\0');
    const ssize_t got = ::pread(fd_, bytes.data(), size, static_cast<off_t>(offset));
    bytes.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
    return bytes;
  }
  void write(std::uint64_t offset, const std::string& bytes) const {
    if (::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset)) != static_cast<ssize_t>(bytes.size()))
      throw std::runtime_error("a file of a store cannot be written");
  }

 private:
  const int fd_;
};

bool is_zero(const std::string& bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](char byte) { return byte == '\0'; });
}

}  // namespace

StoreImage::File StoreImage::read(const std::string& path) {
  const Fd fd(path, O_RDONLY);
  File file;
  file.size = stdfs::file_size(path);
  std::string* run = nullptr;
  for (off_t at = 0; (at = ::lseek(fd.get(), at, SEEK_DATA)) >= 0; at += static_cast<off_t>(kPage)) {
    at -= at % static_cast<off_t>(kPage);
    const std::string page = fd.read(static_cast<std::uint64_t>(at), kPage);
    const auto offset = static_cast<std::uint64_t>(at);
    const bool goes_on = run != nullptr && std::prev(file.runs.end())->first + run->size() == offset;
    if (is_zero(page))
      run = nullptr;
    else if (goes_on)
      *run += page;
    else
      run = &(file.runs[offset] = page);
  }
  return file;
}

void StoreImage::write(const std::string& path, const File& file) {
  const Fd fd(path, O_RDWR | O_CREAT);
  if (::ftruncate(fd.get(), 0) != 0 || ::ftruncate(fd.get(), static_cast<off_t>(file.size)) != 0)
    throw std::runtime_error(path + " cannot be cut");
  for (const auto& [offset, bytes] : file.runs) fd.write(offset, bytes);
}

StoreImage::StoreImage(const std::string& directory) {
  for (const auto& entry : stdfs::recursive_directory_iterator(directory)) {
    const std::string name = stdfs::relative(entry.path(), directory);
    if (entry.is_directory())
      directories_.insert(name);
    else
      files_[name] = name == kReserve ? File{} : read(entry.path());
  }
  for (const auto& [name, file] : files_) names_.push_back(name);
}

void StoreImage::restore(const std::string& directory) const {
  stdfs::create_directories(directory);
  std::vector<stdfs::path> foreign;
  for (auto at = stdfs::recursive_directory_iterator(directory); at != stdfs::recursive_directory_iterator(); ++at) {
    const std::string name = at->path().string().substr(directory.size() + 1);
    const auto type = at->symlink_status().type();
    const bool right = type == stdfs::file_type::directory ? directories_.contains(name)
                                                           : type == stdfs::file_type::regular && files_.contains(name);
    if (right) continue;
    foreign.push_back(at->path());
    at.disable_recursion_pending();
  }
  for (const stdfs::path& path : foreign) stdfs::remove_all(path);
  for (const std::string& name : directories_) ::mkdir((directory + "/" + name).c_str(), 0700);
  for (const auto& [name, file] : files_)
    if (name != kReserve || !stdfs::exists(directory + "/" + name)) write(directory + "/" + name, file);
}

std::string StoreImage::bytes(const std::string& file, std::uint64_t offset, std::size_t size) const {
  std::string out(size, '\0');
  for (const auto& [start, run] : files_.at(file).runs) {
    const std::uint64_t from = std::max(start, offset), to = std::min(start + run.size(), offset + size);
    if (from < to)
      std::copy_n(run.begin() + static_cast<std::ptrdiff_t>(from - start), to - from,
                  out.begin() + static_cast<std::ptrdiff_t>(from - offset));
  }
  return out;
}

std::vector<std::uint64_t> StoreImage::pieces(const std::string& file, std::size_t unit) const {
  std::set<std::uint64_t> numbers;
  for (const auto& [start, run] : files_.at(file).runs)
    for (std::uint64_t piece = start / unit; piece * unit < start + run.size(); ++piece) numbers.insert(piece);
  return {numbers.begin(), numbers.end()};
}

bool StoreImage::holds(const std::string& path, std::string_view text) {
  const File file = read(path);
  return std::any_of(file.runs.begin(), file.runs.end(),
                     [&](const auto& run) { return run.second.find(text) != std::string::npos; });
}

LayerId layer_of_path(const std::string& file) {
  constexpr std::size_t kName = 10, kDigits = 16;  // layers/xx/
  if (!file.starts_with("layers/") || file.size() < kName + kDigits) return {};
  return LayerId{std::stoull(file.substr(kName, kDigits), nullptr, 16)};
}

void overwrite(const std::string& path, std::uint64_t offset, const std::string& bytes) {
  Fd(path, O_RDWR).write(offset, bytes);
}

void flip_bit(const std::string& path, std::uint64_t offset, unsigned bit) {
  const Fd fd(path, O_RDWR);
  std::string byte = fd.read(offset, 1);
  byte.at(0) = static_cast<char>(byte.at(0) ^ (1 << bit));
  fd.write(offset, byte);
}

}  // namespace rekeyfs::test
