#include "engine/io/local_storage.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include <dirent.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace rekeyfs::io {
namespace {

constexpr mode_t kFileMode = 0600;
constexpr mode_t kDirectoryMode = 0700;
constexpr int kMaxWaits = 16;  // bounds the total time of a check of a permanently broken disk

// Retries after EINTR.
template <typename Call>
auto uninterrupted(Call call) {
  for (;;) {
    auto answer = call();
    if (answer != -1 || errno != EINTR) return answer;
  }
}

std::string doing_to(std::string_view doing, std::string_view path) {
  return std::string(doing) + " `" + (path.empty() ? "." : std::string(path)) + "` in the store";
}

// openat2 returns ELOOP or EXDEV if a link was on the way or led outside; EISDIR and ENOTDIR mean that a directory is
// where a file should be, or the reverse.
tl::unexpected<Error> failed(int error_number, std::string_view doing, std::string_view path) {
  if (error_number == ELOOP || error_number == EXDEV || error_number == EISDIR || error_number == ENOTDIR)
    return fail(Errc::corrupt, doing_to(doing, path) +
                                   ": the path leads through a symbolic link or another file system, or a directory and a "
                                   "file are exchanged; rekeyfs makes neither: find out who did, and undo it");
  return fail(error_from_errno(error_number, doing_to(doing, path)));
}

// Paths must be relative and consist of names only. openat2 enforces that, too; checking here gives one error for all
// calls.
Status check_path(std::string_view path) {
  bool good = path.find('\0') == std::string_view::npos;
  while (good && !path.empty()) {
    const std::size_t end = std::min(path.find('/'), path.size());
    const std::string_view name = path.substr(0, end);
    good = !name.empty() && name != "." && name != ".." && end + 1 != path.size();
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  if (!good)
    return fail(Errc::invalid, "a path in the store must be relative and without \".\", \"..\" and empty names");
  return {};
}

// Retries up to twice if the disk fails, as long as retries are left; not at all if `waits` is null.
template <typename Call>
auto patient(std::atomic<int>* waits, Call call) {
  auto answer = call();
  for (int more = 2; more > 0 && waits && answer == -1 && errno == EIO && waits->fetch_sub(1) > 0; --more) {
    std::this_thread::sleep_for(std::chrono::milliseconds(250));
    answer = call();
  }
  return answer;
}

class LocalFile final : public File {
 public:
  LocalFile(Descriptor fd, std::string path, std::shared_ptr<std::atomic<int>> waits)
      : fd_(std::move(fd)), path_(std::move(path)), waits_(std::move(waits)) {}

  Result<std::size_t> read(std::uint64_t offset, ByteSpan out) override {
    std::size_t done = 0;
    while (done < out.size()) {
      const ssize_t n = patient(waits_.get(), [&] {
        return uninterrupted(
            [&] { return ::pread(fd_.get(), out.data() + done, out.size() - done, static_cast<off_t>(offset + done)); });
      });
      if (n < 0) return failed(errno, "read", path_);
      if (n == 0) break;
      done += static_cast<std::size_t>(n);
    }
    return done;
  }

  Status write(std::uint64_t offset, ByteView bytes) override {
    while (!bytes.empty()) {
      const ssize_t n =
          uninterrupted([&] { return ::pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)); });
      if (n < 0) return failed(errno, "write", path_);
      offset += static_cast<std::uint64_t>(n);
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
    return {};
  }

  Status sync() override {
    if (uninterrupted([&] { return ::fdatasync(fd_.get()); }) != 0) return failed(errno, "sync", path_);
    return {};
  }

  Status punch(std::uint64_t offset, std::uint64_t size) override {
    return change_space(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, size, "giving back space of");
  }

  Status reserve(std::uint64_t offset, std::uint64_t size) override { return change_space(0, offset, size, "reserving space for"); }

  Result<std::uint64_t> reserved(std::uint64_t offset, std::uint64_t size) override {
    std::uint64_t bytes = 0;
    for (const std::uint64_t end = offset + size; offset < end;) {
      RK_TRY_ASSIGN(const std::vector<fiemap_extent> extents, extents_in(offset, end));
      for (const fiemap_extent& extent : extents) {
        const std::uint64_t from = std::max<std::uint64_t>(offset, extent.fe_logical);
        const std::uint64_t to = std::min<std::uint64_t>(end, extent.fe_logical + extent.fe_length);
        // Shared with a file cloned by a user: a write will copy it and needs space.
        const bool is_shared = (extent.fe_flags & FIEMAP_EXTENT_SHARED) != 0;
        if (!is_shared && from < to) bytes += to - from;
      }
      if (extents.size() < kExtents) break;
      offset = extents.back().fe_logical + extents.back().fe_length;
    }
    return bytes;
  }

  Result<std::uint64_t> size() override {
    struct stat facts {};
    if (::fstat(fd_.get(), &facts) != 0) return failed(errno, "looking at", path_);
    return static_cast<std::uint64_t>(facts.st_size);
  }

 private:
  static constexpr std::size_t kExtents = 32;  // requested at a time

  // The first few extents in the range; empty if the file system cannot tell.
  Result<std::vector<fiemap_extent>> extents_in(std::uint64_t offset, std::uint64_t end) {
    alignas(fiemap) std::array<std::byte, sizeof(fiemap) + kExtents * sizeof(fiemap_extent)> buffer{};
    fiemap request{};
    request.fm_start = offset;
    request.fm_length = end - offset;
    request.fm_extent_count = kExtents;
    std::memcpy(buffer.data(), &request, sizeof request);
    if (uninterrupted([&] { return ::ioctl(fd_.get(), FS_IOC_FIEMAP, buffer.data()); }) != 0) {
      if (errno == EOPNOTSUPP || errno == ENOTTY) return std::vector<fiemap_extent>{};
      return failed(errno, "looking at", path_);
    }
    std::memcpy(&request, buffer.data(), sizeof request);
    std::vector<fiemap_extent> extents(std::min<std::size_t>(request.fm_mapped_extents, kExtents));
    if (!extents.empty()) std::memcpy(extents.data(), &buffer[sizeof(fiemap)], extents.size() * sizeof(fiemap_extent));
    return extents;
  }

  Status change_space(int mode, std::uint64_t offset, std::uint64_t size, std::string_view doing) {
    if (size == 0) return {};  // the kernel rejects an empty range
    if (uninterrupted(
            [&] { return ::fallocate(fd_.get(), mode, static_cast<off_t>(offset), static_cast<off_t>(size)); }) != 0)
      return failed(errno, doing, path_);
    return {};
  }

  const Descriptor fd_;
  const std::string path_;
  const std::shared_ptr<std::atomic<int>> waits_;
};

int flags_of(OpenMode mode) {
  switch (mode) {
    case OpenMode::read:
      return O_RDONLY;
    case OpenMode::write:
      return O_RDWR;
    case OpenMode::create:
      return O_RDWR | O_CREAT;
    case OpenMode::create_new:
      return O_RDWR | O_CREAT | O_EXCL;
  }
  return O_RDONLY;
}

struct DirectoryCloser {
  void operator()(DIR* directory) const { ::closedir(directory); }
};
using DirectoryStream = std::unique_ptr<DIR, DirectoryCloser>;

}  // namespace

Result<std::unique_ptr<LocalStorage>> LocalStorage::open(const std::string& directory, ReadErrors read_errors) {
  Descriptor root(uninterrupted([&] { return ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }));
  if (!root) return fail(error_from_errno(errno, "open the store `" + directory + "`"));
  auto waits = read_errors == ReadErrors::tried_again ? std::make_shared<std::atomic<int>>(kMaxWaits) : nullptr;
  return std::unique_ptr<LocalStorage>(new LocalStorage(std::move(root), std::move(waits)));
}

Result<Descriptor> LocalStorage::open_below(std::string_view path, int flags) const {
  RK_TRY(check_path(path));
  const std::string name = path.empty() ? "." : std::string(path);
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags | O_CLOEXEC);
  how.mode = (flags & O_CREAT) != 0 ? kFileMode : 0;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  const long fd = uninterrupted([&] { return ::syscall(SYS_openat2, root_.get(), name.c_str(), &how, sizeof(how)); });
  if (fd < 0) return failed(errno, "open", path);
  return Descriptor(static_cast<int>(fd));
}

Result<LocalStorage::Place> LocalStorage::place_of(std::string_view path) const {
  RK_TRY(check_path(path));
  if (path.empty()) return fail(Errc::invalid, "the root directory of the store cannot be changed");
  const std::size_t slash = path.rfind('/');
  const std::string_view parent = slash == std::string_view::npos ? "" : path.substr(0, slash);
  const std::string_view name = slash == std::string_view::npos ? path : path.substr(slash + 1);
  RK_TRY_ASSIGN(Descriptor directory, open_below(parent, O_PATH | O_DIRECTORY));
  return Place{std::move(directory), std::string(name)};
}

Result<std::unique_ptr<File>> LocalStorage::open(std::string_view path, OpenMode mode) {
  // Non-blocking, so that a planted pipe does not make the store wait for its other end.
  RK_TRY_ASSIGN(Descriptor fd, open_below(path, flags_of(mode) | O_NONBLOCK | O_NOCTTY));
  struct stat facts {};
  if (::fstat(fd.get(), &facts) != 0) return failed(errno, "looking at", path);
  if (!S_ISREG(facts.st_mode))
    return fail(Errc::corrupt,
                doing_to("open", path) + ": it is not a regular file: find out who put it there, and remove it");
  return std::make_unique<LocalFile>(std::move(fd), std::string(path), waits_);
}

Result<bool> LocalStorage::exists(std::string_view path) {
  auto found = open_below(path, O_PATH);
  if (found) return true;
  if (found.error().code == Errc::not_found) return false;
  return fail(found.error());
}

Status LocalStorage::make_directory(std::string_view path) {
  RK_TRY_ASSIGN(Place place, place_of(path));
  if (::mkdirat(place.parent.get(), place.name.c_str(), kDirectoryMode) == 0) return {};
  if (errno != EEXIST) return failed(errno, "making the directory", path);
  RK_TRY(open_below(path, O_PATH | O_DIRECTORY));  // succeeds only if it is a directory
  return {};
}

Status LocalStorage::unlink(std::string_view path, int flags) const {
  auto place = place_of(path);
  if (!place && place.error().code == Errc::not_found) return {};
  if (!place) return fail(place.error());
  if (::unlinkat(place->parent.get(), place->name.c_str(), flags) != 0 && errno != ENOENT)
    return failed(errno, "removing", path);
  return {};
}

Status LocalStorage::remove(std::string_view path) {
  return unlink(path, 0);
}

Status LocalStorage::remove_directory(std::string_view path) {
  return unlink(path, AT_REMOVEDIR);
}

Status LocalStorage::rename(std::string_view from, std::string_view to) {
  RK_TRY_ASSIGN(Place source, place_of(from));
  RK_TRY_ASSIGN(Place target, place_of(to));
  if (::renameat(source.parent.get(), source.name.c_str(), target.parent.get(), target.name.c_str()) != 0)
    return failed(errno, "renaming", from);
  return {};
}

Result<std::vector<std::string>> LocalStorage::list(std::string_view path) {
  RK_TRY_ASSIGN(Descriptor fd, open_below(path, O_RDONLY | O_DIRECTORY));
  DirectoryStream directory(::fdopendir(fd.get()));
  if (!directory) return failed(errno, "listing", path);
  fd.release();  // closed by the stream
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(directory.get());
    if (entry == nullptr && errno != 0) return failed(errno, "listing", path);
    if (entry == nullptr) return names;
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
}

Status LocalStorage::sync_directory(std::string_view path) {
  RK_TRY_ASSIGN(Descriptor fd, open_below(path, O_RDONLY | O_DIRECTORY));
  if (uninterrupted([&] { return ::fsync(fd.get()); }) != 0) return failed(errno, "sync", path);
  return {};
}

Status LocalStorage::sync_all() {
  if (uninterrupted([&] { return ::syncfs(root_.get()); }) != 0) return failed(errno, "sync", "");
  return {};
}

Result<Space> LocalStorage::space() {
  struct statvfs facts {};
  if (uninterrupted([&] { return ::fstatvfs(root_.get(), &facts); }) != 0)
    return failed(errno, "asking for the space of", "");
  const std::uint64_t unit = facts.f_frsize;
  // Some file systems have no limit on files and report 0.
  const std::uint64_t files = facts.f_files == 0 ? UINT64_MAX : facts.f_favail;
  return Space{.total = facts.f_blocks * unit, .available = facts.f_bavail * unit, .free = facts.f_bfree * unit, .files = files};
}

}  // namespace rekeyfs::io
