#include "tools/read_mount.h"

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/descriptor.h"

namespace rekeyfs::tools {
namespace {

namespace stdfs = std::filesystem;

constexpr std::size_t kPiece = std::size_t{1} << 20;
// Unit in which damage is located; also the alignment of direct reads.
constexpr std::size_t kBlock = std::size_t{16} << 10;

bool is_damage(int error_number) { return error_number == EIO || error_number == ESTALE || error_number == EUCLEAN; }

class Walk {
 public:
  Walk(std::string top, bool read_data, CheckObserver& observer)
      : top_(std::move(top)), read_data_(read_data), observer_(observer), buffer_(std::aligned_alloc(kBlock, kPiece), std::free) {}

  CheckReport run() {
    directory(top_);
    report_.complete = true;
    return std::move(report_);
  }

 private:
  void directory(const std::string& path) {
    ++report_.directories;
    std::error_code error;
    for (stdfs::directory_iterator at(path, error), end; !error && at != end; at.increment(error)) node(at->path().string());
    if (error) note(path, error.value(), "cannot be listed");
  }

  void node(const std::string& path) {
    struct stat facts {};
    if (lstat(path.c_str(), &facts) != 0) return note(path, errno, "cannot be looked at");
    if (S_ISDIR(facts.st_mode)) return directory(path);
    if (S_ISLNK(facts.st_mode)) return link(path);
    ++report_.images;
    observer_.progress("images", report_.images, 0);
    if (read_data_) image(path, static_cast<std::uint64_t>(facts.st_size));
  }

  void link(const std::string& path) {
    ++report_.links;
    std::error_code error;
    static_cast<void>(stdfs::read_symlink(path, error));
    if (error) note(path, error.value(), "cannot be read");
  }

  // Bypasses the page cache, which may still hold data that the disk has lost.
  void image(const std::string& path, std::uint64_t size) {
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_DIRECT | O_NOFOLLOW | O_CLOEXEC));
    if (!file) return note(path, errno, "cannot be opened");
    CheckProblem damage;
    for (std::uint64_t offset = 0; offset < size; offset += kPiece) {
      observer_.progress("data", report_.bytes, 0);
      if (read(file, offset, kPiece)) continue;
      if (!is_damage(errno)) return note(path, errno, "cannot be read");
      for (std::uint64_t at = offset; at < offset + kPiece && at < size; at += kBlock)
        if (!read(file, at, kBlock)) add_block(damage, path, at, std::min<std::uint64_t>(kBlock, size - at));
    }
    if (damage.size > 0) add(std::move(damage));
  }

  bool read(const Descriptor& file, std::uint64_t offset, std::size_t size) {
    const ssize_t got = pread(file.get(), buffer_.get(), size, static_cast<off_t>(offset));
    if (got > 0) report_.bytes += static_cast<std::uint64_t>(got);
    return got >= 0;
  }

  void add_block(CheckProblem& damage, const std::string& path, std::uint64_t offset, std::uint64_t size) {
    if (damage.size > 0 && damage.offset + damage.size != offset) add(std::exchange(damage, {}));
    if (damage.size == 0) {
      damage.kind = CheckProblem::Kind::block;
      damage.path = relative(path);
      damage.remedy = "restore the image from a copy";
      damage.offset = offset;
    }
    damage.size += size;
    damage.what = "blocks " + std::to_string(damage.offset / kBlock) + " to " + std::to_string((damage.offset + damage.size - 1) / kBlock) +
                  " cannot be read: they are damaged";
  }

  void note(const std::string& path, int error_number, const char* what) {
    const Error error = error_from_errno(error_number, what);
    if (!is_damage(error_number)) {
      report_.unverified.push_back({relative(path), describe(error)});
      return;
    }
    CheckProblem problem;
    problem.path = relative(path);
    problem.what = what;
    problem.remedy = "unmount, and run rekeyfs check --repair on the store";
    add(std::move(problem));
  }

  void add(CheckProblem problem) {
    observer_.found(problem);
    report_.problems.push_back(std::move(problem));
  }

  std::string relative(const std::string& path) const { return path.size() > top_.size() ? path.substr(top_.size()) : "/"; }

  const std::string top_;
  const bool read_data_;
  CheckObserver& observer_;
  CheckReport report_;
  const std::unique_ptr<void, void (*)(void*)> buffer_;
};

}  // namespace

CheckReport read_mount(const std::string& directory, bool read_data, CheckObserver& observer) {
  return Walk(directory == "/" ? "" : directory, read_data, observer).run();
}

}  // namespace rekeyfs::tools
