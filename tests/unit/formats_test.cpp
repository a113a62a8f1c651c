// Disk formats: images written by qemu-img, read through DiskView and compared with what qemu-img reads.
#include "engine/formats/disk_view.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <sstream>
#include <thread>

#include <gmock/gmock.h>

#include "engine/base/descriptor.h"
#include "engine/base/mutex.h"
#include "engine/formats/sandboxed_process.h"
#include "tests/support/environment.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs::formats {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using Bytes = std::vector<std::byte>;
using ::testing::HasSubstr;

const std::atomic<uid_t> kUser{1000}, kOtherUser{1001};
constexpr std::uint64_t kKiB = 1u << 10, kMiB = 1u << 20, kGiB = 1u << 30;

// An image in a file, whose reads can be made to fail or to hang.
class ImageFile final : public formats::Content {
 public:
  explicit ImageFile(const std::string& path) : file_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    struct stat facts {};
    if (::fstat(file_.get(), &facts) == 0) size_ = static_cast<std::uint64_t>(facts.st_size);
  }
  ~ImageFile() override { set_hanging(false); }

  std::uint64_t size() const override { return size_; }
  Status read(std::uint64_t offset, ByteSpan out) override {
    {
      Lock lock(mutex_);
      while (hanging_) changed_.wait(mutex_);
      if (error_) return fail(*error_);
    }
    read_ += out.size();
    std::ranges::fill(out, std::byte{0});
    return ::pread(file_.get(), out.data(), out.size(), static_cast<off_t>(offset)) < 0 ? Status(fail(Errc::io)) : Status();
  }
  Result<std::uint64_t> zeros_at(std::uint64_t) override { return 0; }

  void set_error(std::optional<Error> error) {
    Lock lock(mutex_);
    error_ = std::move(error);
  }
  void set_hanging(bool hanging) {
    Lock lock(mutex_);
    hanging_ = hanging;
    changed_.notify_all();
  }
  std::uint64_t bytes_read() const { return read_; }

 private:
  const Descriptor file_;
  std::uint64_t size_ = 0;
  std::atomic<std::uint64_t> read_ = 0;
  Mutex mutex_;
  CondVar changed_;
  bool hanging_ GUARDED_BY(mutex_) = false;
  std::optional<Error> error_ GUARDED_BY(mutex_);
};

// Empty for a process that has ended, be it while it is read.
std::string stat_of(const std::string& pid) {
  std::ifstream stat("/proc/" + pid + "/stat");
  std::string line;
  std::getline(stat, line);
  return line;
}

// The processes started by this one, and theirs, of one program.
std::vector<pid_t> descendants(const std::string& program) {
  std::vector<std::pair<pid_t, pid_t>> parents;
  std::vector<pid_t> named;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const std::string text = stat_of(name);
    const auto open = text.find('('), close = text.rfind(')');
    if (open == std::string::npos || close == std::string::npos || text.size() < close + 4) continue;
    const pid_t pid = std::stoi(name), parent = std::stoi(text.substr(close + 4));
    parents.emplace_back(pid, parent);
    if (text[close + 2] != 'Z' && text.substr(open + 1, close - open - 1) == program.substr(0, 15)) named.push_back(pid);
  }
  const auto is_ours = [&](pid_t pid) {
    for (int depth = 0; depth < 8; ++depth) {
      const auto found = std::ranges::find(parents, pid, &std::pair<pid_t, pid_t>::first);
      if (found == parents.end()) return false;
      pid = found->second;
      if (pid == ::getpid()) return true;
    }
    return false;
  };
  std::erase_if(named, [&](pid_t pid) { return !is_ours(pid); });
  return named;
}
std::vector<pid_t> readers() { return descendants("qemu-storage-daemon"); }

bool is_gone(pid_t pid) {
  const std::string text = stat_of(std::to_string(pid));
  return text.empty() || text.find(") Z") != std::string::npos;
}

// The abstract names of the sockets that a process has.
std::vector<std::string> listening_names(pid_t pid) {
  std::set<std::string> sockets;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd")) {
    const std::string target = std::filesystem::read_symlink(entry.path());
    if (target.starts_with("socket:[")) sockets.insert(target.substr(8, target.size() - 9));
  }
  std::vector<std::string> names;
  std::ifstream table("/proc/net/unix");
  constexpr unsigned kAccepts = 0x10000;  // the flag of a listening socket
  for (std::string line; std::getline(table, line);) {
    std::istringstream words(line);
    std::string number, references, protocol, flags, type, state, inode, name;
    words >> number >> references >> protocol >> flags >> type >> state >> inode >> name;
    if (sockets.contains(inode) && (std::stoul(flags, nullptr, 16) & kAccepts) != 0 && name.starts_with('@')) names.push_back(name.substr(1));
  }
  return names;
}

// Waits, at most ten seconds, for what a kernel does in its own time.
template <typename Condition>
bool comes_true(Condition condition) {
  for (const auto end = Clock::now() + 10s; Clock::now() < end; std::this_thread::sleep_for(10ms))
    if (condition()) return true;
  return condition();
}

class FormatsTest : public test::TempDirectory {
 protected:
  FormatReaders format_readers_;

  void run(const std::string& command) {
    const std::string line = "cd " + directory() + " && " + command + " >/dev/null";
    ASSERT_EQ(std::system(line.c_str()), 0) << command;
  }
  // A disk with what disks have: random bytes, compressible ones, written zeros, and holes, ending in the middle of a cluster.
  void make_disk(std::uint64_t size = 12 * kMiB + 3 * 512) {
    std::mt19937_64 random(7);
    std::ofstream out(path("disk"), std::ios::binary);
    const auto put = [&](std::uint64_t offset, std::uint64_t length, auto value) {
      std::string text(length, '\0');
      for (char& letter : text) letter = static_cast<char>(value());
      out.seekp(static_cast<std::streamoff>(offset));
      out << text;
    };
    put(0, 700 * kKiB, [&] { return random(); });
    put(2 * kMiB + 512, 900 * kKiB, [i = 0]() mutable { return (i++ / 100) % 7; });
    put(5 * kMiB, 64 * kKiB, [] { return 0; });
    put(9 * kMiB - 4 * kKiB, 8 * kKiB, [&] { return random(); });
    put(size - 512, 512, [&] { return random(); });
  }
  std::shared_ptr<ImageFile> image(const std::string& name = "image") { return std::make_shared<ImageFile>(path(name)); }
  Bytes bytes_of(const std::string& name) {
    ImageFile file(path(name));
    Bytes bytes(file.size());
    EXPECT_TRUE(file.read(0, bytes));
    return bytes;
  }
  void patch(const std::string& name, std::uint64_t offset, std::string_view bytes) {
    std::fstream file(path(name), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(offset));
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
  // Everything read through the view equals what qemu-img reads; and what is called zeros is.
  void expect_equal_to_qemu(Format format, bool knows_holes = true) {
    run("qemu-img convert -f " + std::string(name_of(format)) + " -O raw image expected");
    const Bytes expected = bytes_of("expected");
    const auto facts = probe_disk(image(), format);
    ASSERT_TRUE(facts) << facts.error().message;
    ASSERT_EQ(facts->size, expected.size());
    const auto view = open_disk(image(), format, facts->size, format_readers_, kUser);
    Bytes seen(expected.size());
    const std::size_t piece = 3 * kMiB - 512;
    for (std::size_t offset = 0; offset < seen.size(); offset += piece) {
      const Status status = view->read(offset, ByteSpan(seen).subspan(offset, std::min(piece, seen.size() - offset)));
      ASSERT_TRUE(status) << status.error().message;
    }
    EXPECT_TRUE(seen == expected);
    expect_zeros_true(*view, expected, knows_holes);
    expect_tail_zero(*view, expected);
  }
  void expect_zeros_true(formats::Content& view, const Bytes& expected, bool knows_holes) {
    std::uint64_t zeros = 0;
    for (std::uint64_t offset = 0; offset < expected.size();) {
      const auto found = view.zeros_at(offset);
      ASSERT_TRUE(found) << found.error().message;
      ASSERT_LE(offset + *found, expected.size());
      const auto begin = expected.begin() + static_cast<std::ptrdiff_t>(offset);
      ASSERT_TRUE(std::all_of(begin, begin + static_cast<std::ptrdiff_t>(*found), [](std::byte b) { return b == std::byte{0}; }));
      zeros += *found;
      offset += std::max<std::uint64_t>(*found, 4 * kKiB);
    }
    if (knows_holes) {
      EXPECT_GT(zeros, 4 * kMiB);
    }
  }
  void expect_tail_zero(formats::Content& view, const Bytes& expected) {
    Bytes tail(1024, std::byte{1});
    ASSERT_TRUE(view.read(expected.size() - 512, tail));
    EXPECT_TRUE(std::equal(tail.begin(), tail.begin() + 512, expected.end() - 512));
    EXPECT_TRUE(std::all_of(tail.begin() + 512, tail.end(), [](std::byte b) { return b == std::byte{0}; }));
  }
  void expect_refused(Format format, const std::string& reason, const std::string& name = "image") {
    const auto facts = probe_disk(image(name), format);
    ASSERT_FALSE(facts);
    EXPECT_EQ(facts.error().code, Errc::wrong_medium) << facts.error().message;
    EXPECT_THAT(facts.error().message, HasSubstr(reason));
  }
};

struct Case {
  std::string name, options;
  Format format;
  bool knows_holes = true;
};
class EveryFormat : public FormatsTest, public ::testing::WithParamInterface<Case> {};

TEST_P(EveryFormat, ReadsAsQemuReadsIt) {
  make_disk();
  run("qemu-img convert -f raw -O " + GetParam().options + " disk image");
  expect_equal_to_qemu(GetParam().format, GetParam().knows_holes);
}

INSTANTIATE_TEST_SUITE_P(
    Formats, EveryFormat,
    ::testing::Values(Case{"qcow2", "qcow2", Format::qcow2}, Case{"qcow2_old", "qcow2 -o compat=0.10", Format::qcow2},
                      Case{"qcow2_zlib", "qcow2 -c", Format::qcow2},
                      Case{"qcow2_zstd", "qcow2 -c -o compression_type=zstd", Format::qcow2},
                      Case{"qcow2_subclusters", "qcow2 -o extended_l2=on,cluster_size=128k", Format::qcow2},
                      Case{"qcow2_small_clusters", "qcow2 -o cluster_size=512", Format::qcow2},
                      Case{"qcow2_large_clusters", "qcow2 -o cluster_size=2M", Format::qcow2},
                      Case{"qcow", "qcow", Format::qcow},
                      Case{"qed", "qed", Format::qed}, Case{"vmdk", "vmdk", Format::vmdk},
                      Case{"vmdk_stream", "vmdk -o subformat=streamOptimized", Format::vmdk},
                      Case{"vpc", "vpc", Format::vpc}, Case{"vpc_fixed", "vpc -o subformat=fixed", Format::vpc, false},
                      Case{"vhdx", "vhdx", Format::vhdx, false}, Case{"vhdx_fixed", "vhdx -o subformat=fixed", Format::vhdx, false},
                      Case{"vdi", "vdi", Format::vdi}, Case{"vdi_static", "vdi -o static=on", Format::vdi, false}),
    [](const auto& one) { return one.param.name; });

TEST_P(EveryFormat, IsKnownByItsMagic) {
  make_disk();
  run("qemu-img convert -f raw -O " + GetParam().options + " disk image");
  const Bytes bytes = bytes_of("image");
  EXPECT_EQ(detect_format(ByteView(bytes).first(kFormatHead), ByteView(bytes).last(kFormatTail)), GetParam().format);
}

TEST_F(FormatsTest, NumbersOnDiskNameFormats) {
  for (std::uint8_t number = 0; number < 8; ++number) {
    const auto format = format_from_number(number);
    ASSERT_TRUE(format);
    EXPECT_EQ(static_cast<std::uint8_t>(*format), number);
  }
  EXPECT_EQ(name_of(Format::vpc), "vpc");
  EXPECT_EQ(format_from_number(8).error().code, Errc::corrupt);
}

TEST_F(FormatsTest, RawIsItsOwnDisk) {
  make_disk(kMiB * 12 + 77);
  const auto disk = image("disk");
  EXPECT_EQ(probe_disk(disk, Format::raw)->size, 12 * kMiB + 77);
  EXPECT_EQ(open_disk(disk, Format::raw, disk->size(), format_readers_, kUser), disk);
}

TEST_F(FormatsTest, SizeIsRoundedToSectorsAsQemuDoes) {
  make_disk(12 * kMiB + 1001);
  run("qemu-img convert -f raw -O qcow2 disk image");
  expect_equal_to_qemu(Format::qcow2);
}

TEST_F(FormatsTest, ImageThatEndsWithinASector) {
  make_disk(12 * kMiB);  // so that the last sector of the image is the disk's
  run("qemu-img convert -f raw -O qcow2 disk image && truncate -s -100 image");
  expect_equal_to_qemu(Format::qcow2);
}

TEST_F(FormatsTest, CompressedQcow) {  // qemu-img convert -c of QEMU 7.2 fails at the end of one
  run("qemu-img create -q -f qcow image 12M");
  run("qemu-io -f qcow -c 'write -c -P 5 0 4k' -c 'write -c -P 6 1M 4k' -c 'write -P 7 4M 5k' image");
  expect_equal_to_qemu(Format::qcow);
}

TEST_F(FormatsTest, SnapshotsInsideAreNotTheDisk) {
  make_disk();
  run("qemu-img convert -f raw -O qcow2 disk image && qemu-img snapshot -c before image");
  run("qemu-io -f qcow2 -c 'write -P 5 1M 3M' -c 'write -z 0 300k' image");
  expect_equal_to_qemu(Format::qcow2);
}

TEST_F(FormatsTest, NearlyEmptyTebibyteIsSkippedQuickly) {
  run("qemu-img create -q -f qcow2 image 1T && qemu-io -f qcow2 -c 'write -P 9 700G 64k' image");
  const auto view = open_disk(image(), Format::qcow2, 1024 * kGiB, format_readers_, kUser);
  const auto begin = Clock::now();
  std::uint64_t offset = 0, data = 0;
  while (offset < view->size()) {
    const auto zeros = view->zeros_at(offset);
    ASSERT_TRUE(zeros) << zeros.error().message;
    offset += *zeros;
    if (*zeros == 0) data += 64 * kKiB, offset += 64 * kKiB;
  }
  EXPECT_EQ(data, 64 * kKiB);
  EXPECT_LT(Clock::now() - begin, 5s);
}

// REKEYFS_TEST_MEASURE=1 prints what a read through the view costs beside qemu-img's own.
TEST_F(FormatsTest, Throughput) {
  if (std::getenv("REKEYFS_TEST_MEASURE") == nullptr) GTEST_SKIP() << "set REKEYFS_TEST_MEASURE to measure";
  run("head -c 512M /dev/urandom > disk && qemu-img convert -O qcow2 disk image && head -c 256M disk | base64 > text");
  run("qemu-img convert -f raw -O qcow2 -c -W text packed && cat image packed");
  for (const std::string name : {"image", "packed"}) {
    const auto megabytes_per_second = [&](auto action) {
      const auto begin = Clock::now();
      const double bytes = action();
      return bytes / 1e6 / std::chrono::duration<double>(Clock::now() - begin).count();
    };
    std::uint64_t size = 0;
    const double probes = megabytes_per_second([&] { 
      size = probe_disk(image(name), Format::qcow2)->size;
      return 1e6;
     });
    const auto view = open_disk(image(name), Format::qcow2, size, format_readers_, kUser);
    Bytes part(kMiB);
    const double starts = megabytes_per_second([&] { 
      EXPECT_TRUE(view->read(0, part));
      return 1e6;
     });
    const double ours = megabytes_per_second([&] {
      for (std::uint64_t offset = 0; offset < size; offset += part.size()) EXPECT_TRUE(view->read(offset, part));
      return static_cast<double>(size);
    });
    const double theirs = megabytes_per_second([&] {
      run("qemu-img convert -n -f qcow2 --target-image-opts " + name + " driver=null-co,size=" + std::to_string(size));
      return static_cast<double>(size);
    });
    std::printf("%s: probe %.0f ms, first read %.0f ms, view %.0f MB/s, qemu-img %.0f MB/s\n", name.c_str(), 1e3 / probes, 1e3 / starts,
                ours, theirs);
  }
}

TEST_F(FormatsTest, ManyReadersAtOnce) {
  make_disk();
  run("qemu-img convert -c -f raw -O qcow2 disk image");
  const Bytes expected = bytes_of("disk");
  const auto view = open_disk(image(), Format::qcow2, expected.size(), format_readers_, kUser);
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (unsigned seed = 0; seed < 8; ++seed)
    threads.emplace_back([&, seed] {
      std::mt19937_64 random(seed);
      Bytes part(16 * kKiB);
      for (int count = 0; count < 100; ++count) {
        const std::uint64_t offset = random() % (expected.size() - part.size());
        if (!view->read(offset, part) || std::memcmp(part.data(), expected.data() + offset, part.size()) != 0) ++wrong;
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(readers().size(), 1u);
}

TEST_F(FormatsTest, BackingFileIsRefused) {
  run("qemu-img create -q -f qcow2 -b /etc/hostname -F raw image 1M");
  expect_refused(Format::qcow2, "needs a backing file");
  run("qemu-img create -q -f vmdk base 1M && qemu-img create -q -f vmdk -b base -F vmdk image2");
  expect_refused(Format::vmdk, "needs a backing file", "image2");
  run("qemu-img create -q -f qed -b /etc/hostname -F raw image3 1M");
  expect_refused(Format::qed, "needs a backing file", "image3");
}

TEST_F(FormatsTest, ParentThatQemuOverlooksIsRefused) {
  run("qemu-img create -q -f vpc image 4M");
  ASSERT_TRUE(probe_disk(image(), Format::vpc));
  for (const std::uint64_t footer : {std::uint64_t{0}, image()->size() - 512}) {
    patch("image", footer + 60, std::string_view("\0\0\0\4", 4));  // differencing
    Bytes bytes = bytes_of("image");
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < 512; ++i) sum += i < 64 || i >= 68 ? std::to_integer<std::uint32_t>(bytes[footer + i]) : 0;
    for (int i = 0; i < 4; ++i) patch("image", footer + 67 - static_cast<unsigned>(i), std::string(1, static_cast<char>(~sum >> (8 * i))));
  }
  run("qemu-img info -f vpc image");  // it sees nothing wrong
  expect_refused(Format::vpc, "needs a backing file");
  run("qemu-img create -q -f vmdk image2 4M && sed -i s/parentCID=ffffffff/parentCID=12345678/ image2");
  expect_refused(Format::vmdk, "needs a backing file", "image2");
}

TEST_F(FormatsTest, DataInOtherFilesIsRefused) {
  run("qemu-img create -q -f qcow2 -o data_file=data,data_file_raw=on image 1M");
  expect_refused(Format::qcow2, "stores its data in another file");
  run("qemu-img create -q -f vmdk -o subformat=monolithicFlat image2 1M");
  expect_refused(Format::vmdk, "cannot be read", "image2");
}

TEST_F(FormatsTest, EncryptionInsideIsRefused) {
  // Now and then its measurement of this machine's speed fails: "Unable to get accurate CPU usage".
  run("for try in $(seq 20); do qemu-img create -q -f qcow2 --object secret,id=s,data=abc "
      "-o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 image 1M && break; done");
  expect_refused(Format::qcow2, "encrypted by its own format");
}

TEST_F(FormatsTest, DamagedHeadersAreRefusedWithTheReason) {
  run("qemu-img create -q -f qcow2 image 1M");
  patch("image", 4, std::string_view("\0\0\0\x09", 4));  // version
  expect_refused(Format::qcow2, "Unsupported qcow2 version 9");
  run("qemu-img create -q -f qcow2 image2 1M");
  patch("image2", 24, "\x7f\xff\xff\xff\xff\xff\xfe");  // size
  expect_refused(Format::qcow2, "", "image2");
  run("head -c 10 image > image3");
  expect_refused(Format::qcow2, "cannot be read", "image3");
  run(": > image4");
  expect_refused(Format::vhdx, "cannot be read", "image4");
}

TEST_F(FormatsTest, MoreThan16TiBIsRefused) {
  run("qemu-img create -q -f qcow2 image 17T");
  expect_refused(Format::qcow2, "16 TiB");
}

TEST_F(FormatsTest, ImageThatCannotBeReadIsNotAVerdictOnIt) {
  run("qemu-img create -q -f qcow2 image 1M");
  const auto source = image();
  source->set_error(Error{Errc::key_revoked, "the key is disabled"});
  EXPECT_EQ(probe_disk(source, Format::qcow2).error().code, Errc::key_revoked);
}

class ReaderFailures : public FormatsTest {
 protected:
  void SetUp() override {
    make_disk();
    run("qemu-img convert -f raw -O qcow2 disk image");
    source_ = image();
    view_ = open_disk(source_, Format::qcow2, source_size(), format_readers_, kUser, patience_);
  }
  std::uint64_t source_size() { return bytes_of("disk").size(); }
  Status read(std::uint64_t offset = 0) { return view_->read(offset, part_); }
  bool recovers() {
    return comes_true([&] { return read(2 * kMiB).has_value(); });
  }

  const Patience patience_{.start = 20s, .answer = 3s, .idle = 10s, .first_pause = 100ms, .longest_pause = 1s};
  std::shared_ptr<ImageFile> source_;
  std::shared_ptr<formats::Content> view_;
  Bytes part_ = Bytes(64 * kKiB);
};

TEST_F(ReaderFailures, NoProcessBeforeTheFirstReadNorAfterTheView) {
  EXPECT_TRUE(readers().empty());
  ASSERT_TRUE(read());
  EXPECT_EQ(readers().size(), 1u);
  view_.reset();
  EXPECT_TRUE(comes_true([] { return readers().empty(); }));
}

TEST_F(ReaderFailures, KilledReaderIsReplaced) {
  ASSERT_TRUE(read());
  for (const pid_t reader : readers()) ::kill(reader, SIGKILL);
  ASSERT_TRUE(comes_true([] { return readers().empty(); }));
  EXPECT_TRUE(read(4 * kMiB));
}

TEST_F(ReaderFailures, ReadersThatAreKilledAgainAndAgainAreAnErrorAndFewAreStarted) {
  const Patience pausing{.start = 20s, .answer = 3s, .idle = 10s, .first_pause = 500ms, .longest_pause = 1s};
  view_ = open_disk(source_, Format::qcow2, source_size(), format_readers_, kUser, pausing);
  std::atomic<bool> done = false;
  std::set<pid_t> killed;
  std::thread killer([&] {
    while (!done)
      for (const pid_t reader : readers())
        if (::kill(reader, SIGKILL) == 0) killed.insert(reader);
  });
  const auto begin = Clock::now();
  int failed = 0;
  while (Clock::now() - begin < 3s) {
    const auto status = read(4 * kMiB);
    if (!status) {
      EXPECT_EQ(status.error().code, Errc::io);
    }
    failed += !status;
  }
  done = true;
  killer.join();
  EXPECT_GT(failed, 10);
  EXPECT_LT(killed.size(), 30u);  // a start takes some milliseconds: without pauses there would be hundreds
  EXPECT_TRUE(recovers());
}

TEST_F(ReaderFailures, StoppedReaderIsAnErrorInBoundedTimeAndThenReplaced) {
  ASSERT_TRUE(read());
  for (const pid_t reader : readers()) ::kill(reader, SIGSTOP);
  const auto begin = Clock::now();
  const Status status = read(4 * kMiB);
  EXPECT_LT(Clock::now() - begin, 15s);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Errc::io);
  EXPECT_TRUE(comes_true([] { return readers().empty(); }));
  EXPECT_TRUE(recovers());
}

TEST_F(ReaderFailures, ImageThatFailsIsItsErrorNotZeros) {
  ASSERT_TRUE(read());
  source_->set_error(Error{Errc::key_revoked, "the key is disabled"});
  const Status status = read(2 * kMiB + 64 * kKiB);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Errc::key_revoked);
  const auto before = readers();
  source_->set_error(std::nullopt);
  EXPECT_TRUE(read(2 * kMiB + 64 * kKiB));
  EXPECT_EQ(readers(), before);
}

TEST_F(ReaderFailures, ImageThatHangsIsAnErrorInBoundedTimeAndRecovers) {
  ASSERT_TRUE(read());
  source_->set_hanging(true);
  const auto begin = Clock::now();
  EXPECT_EQ(read(2 * kMiB + 64 * kKiB).error().code, Errc::io);
  std::this_thread::sleep_for(300ms);
  EXPECT_EQ(read().error().code, Errc::io);  // while it hangs, no further process waits for it
  EXPECT_LT(Clock::now() - begin, 15s);
  EXPECT_TRUE(comes_true([] { return readers().empty(); }));
  source_->set_hanging(false);
  EXPECT_TRUE(recovers());
}

TEST_F(ReaderFailures, IdleReaderEndsAndTheNextReadFindsAnother) {
  const Patience impatient{.start = 5s, .answer = 1s, .idle = 1500ms, .first_pause = 20s, .longest_pause = 20s};
  view_ = open_disk(source_, Format::qcow2, source_size(), format_readers_, kUser, impatient);
  ASSERT_TRUE(read());
  EXPECT_TRUE(comes_true([] { return readers().empty(); }));
  EXPECT_TRUE(read());
}

TEST_F(ReaderFailures, FewRunHoweverManyImagesAreRead) {
  FormatReaders few(2);
  const Patience patience{.start = 10s, .answer = 3s, .idle = 60s, .first_pause = 100ms, .longest_pause = 1s};
  std::vector<std::shared_ptr<Content>> views;
  for (int i = 0; i < 5; ++i) views.push_back(open_disk(source_, Format::qcow2, source_size(), few, kUser, patience));
  Bytes again(part_.size());
  ASSERT_TRUE(read());
  view_.reset();
  for (int round = 0; round < 2; ++round) {
    for (const auto& view : views) {
      const Status status = view->read(0, again);
      ASSERT_TRUE(status) << status.error().message;
      EXPECT_EQ(again, part_);
      EXPECT_TRUE(comes_true([] { return readers().size() <= 2; }));
    }
  }
}

TEST_F(ReaderFailures, WhereAllAreAtWorkOneIsWaitedForAndNotForEver) {
  FormatReaders one(1);
  const Patience patience{.turn = 2s, .start = 2s, .answer = 4s, .idle = 10s, .first_pause = 100ms, .longest_pause = 1s};
  const auto busy = open_disk(source_, Format::qcow2, source_size(), one, kUser, patience);
  ASSERT_TRUE(busy->read(0, part_));
  source_->set_hanging(true);
  std::jthread reading([&] {
    Bytes out(part_.size());
    EXPECT_FALSE(busy->read(2 * kMiB + 512 * kKiB, out));
  });
  std::this_thread::sleep_for(200ms);
  const auto waiting = open_disk(image(), Format::qcow2, source_size(), one, kUser, patience);
  const auto begin = Clock::now();
  const Status status = waiting->read(0, part_);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Errc::busy);
  EXPECT_THAT(status.error().message, HasSubstr("too many images"));
  EXPECT_LT(Clock::now() - begin, 4s);
  reading.join();
  source_->set_hanging(false);
  EXPECT_TRUE(comes_true([&] { return waiting->read(0, part_).has_value(); }));
}

TEST_F(ReaderFailures, OneThatIsAlwaysAtWorkIsRetiredForAnotherImage) {
  FormatReaders one(1);
  const auto busy = open_disk(source_, Format::qcow2, source_size(), one, kUser, patience_);
  std::jthread reading([&](const std::stop_token& over) {
    Bytes out(part_.size());
    while (!over.stop_requested()) {
      const Status status = busy->read(0, out);
      EXPECT_TRUE(status) << status.error().message;
    }
  });
  ASSERT_TRUE(comes_true([] { return readers().size() == 1; }));
  const auto waiting = open_disk(image(), Format::qcow2, source_size(), one, kOtherUser, patience_);
  for (int round = 0; round < 2; ++round) {
    const auto begin = Clock::now();
    const Status status = waiting->read(0, part_);
    EXPECT_TRUE(status) << status.error().message;
    EXPECT_LT(Clock::now() - begin, 10s);
    std::this_thread::sleep_for(1500ms);  // the other one has its turn
  }
}

TEST_F(ReaderFailures, OneUserHasHalfOfThem) {
  FormatReaders four(4);
  const Patience patience{.turn = 1s, .start = 20s, .answer = 5s, .idle = 10s, .first_pause = 100ms, .longest_pause = 1s};
  std::vector<std::shared_ptr<Content>> views;
  for (int i = 0; i < 3; ++i) views.push_back(open_disk(source_, Format::qcow2, source_size(), four, kUser, patience));
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(views[i]->read(0, part_));
  source_->set_hanging(true);
  std::vector<std::jthread> reading;
  for (int i = 0; i < 2; ++i) {
    reading.emplace_back([&, i] {
      Bytes out(part_.size());
      static_cast<void>(views[i]->read(2 * kMiB + 512 * kKiB, out));
    });
  }
  std::this_thread::sleep_for(200ms);
  EXPECT_EQ(views[2]->read(0, part_).error().code, Errc::busy);
  const auto other = open_disk(image(), Format::qcow2, source_size(), four, kOtherUser, patience);
  EXPECT_TRUE(other->read(0, part_));
  source_->set_hanging(false);
}

TEST_F(ReaderFailures, NobodyElseCanConnect) {
  ASSERT_TRUE(read());
  const auto names = listening_names(readers().at(0));
  ASSERT_EQ(names.size(), 1u);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  names[0].copy(address.sun_path + 1, sizeof address.sun_path - 1);
  const Descriptor intruder(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + names[0].size());
  EXPECT_EQ(::connect(intruder.get(), reinterpret_cast<const sockaddr*>(&address), length), -1);
  EXPECT_EQ(errno, ECONNREFUSED);
}

TEST_F(ReaderFailures, DiesWithTheDaemon) {
  std::array<int, 2> ready{};
  ASSERT_EQ(::pipe(ready.data()), 0);
  const pid_t daemon = ::fork();
  if (daemon == 0) {
    std::thread([&] { static_cast<void>(read()); }).join();  // a thread of the daemon that ends is not its end
    std::this_thread::sleep_for(200ms);
    const char well = read(4 * kMiB) ? 'y' : 'n';
    static_cast<void>(::write(ready[1], &well, 1));
    for (;;) ::pause();
  }
  char well = 0;
  ASSERT_EQ(::read(ready[0], &well, 1), 1);
  EXPECT_EQ(well, 'y');
  const auto orphans = readers();
  EXPECT_EQ(orphans.size(), 1u);
  ::kill(daemon, SIGKILL);
  ::waitpid(daemon, nullptr, 0);
  for (const pid_t orphan : orphans) EXPECT_TRUE(comes_true([&] { return is_gone(orphan); }));
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_F(ReaderFailures, WorksForAnOrdinaryUser) {
  if (::geteuid() != 0) GTEST_SKIP() << "all the other tests are run by an ordinary user";
  const pid_t child = ::fork();
  if (child == 0) {
    const bool ordinary = ::setresgid(65534, 65534, 65534) == 0 && ::setresuid(65534, 65534, 65534) == 0;
    ::_exit(!ordinary ? 1 : !probe_disk(source_, Format::qcow2) ? 2 : !read() ? 3 : 0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST_F(ReaderFailures, AnotherSizeThanProbedIsAnError) {
  view_ = open_disk(source_, Format::qcow2, source_size() + 512, format_readers_, kUser, patience_);
  const Status status = read();
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, HasSubstr("reports a disk of"));
}

// What a program in the sandbox can reach. Python, since it is there and can try everything.
class ReaderSandboxTest : public FormatsTest {
 protected:
  std::string output_of(const std::string& script, std::vector<int> descriptors = {}) {
    const auto process = SandboxedProcess::start(
        {.program = "/usr/bin/python3", .arguments = {"-I", "-S", "-c", script}, .descriptors = std::move(descriptors)}, Clock::now() + 20s);
    if (!process) return process.error().message;
    const auto end = (*process)->wait();
    const std::string complaint = (*process)->take_complaint();
    EXPECT_EQ(end.status, 0) << complaint;
    return (*process)->take_output();
  }
};

TEST_F(ReaderSandboxTest, NoFileOfTheHost) {
  std::ofstream(path("secret")) << "secret";
  EXPECT_EQ(output_of("import os\nprint(sorted(os.listdir('/')), sorted(os.listdir('/usr')), os.listdir('/usr/bin'))"),
            std::filesystem::exists("/lib64") ? "['lib', 'lib64', 'usr'] ['bin', 'lib', 'lib64'] ['python3']\n"
                                              : "['lib', 'usr'] ['bin', 'lib'] ['python3']\n");
  const std::string script = R"(
for path in ('/etc/passwd', '/proc/self/status', '/dev/null', '/sys/kernel', '/root', '/home', '/tmp', ')" + path("secret") + R"('):
  try: open(path); print(path)
  except FileNotFoundError: pass
for path in ('/x', '/usr/x', '/usr/lib/x'):
  try: open(path, 'w'); print(path)
  except OSError: pass
print('done'))";
  EXPECT_EQ(output_of(script), "done\n");
}

TEST_F(ReaderSandboxTest, NoDescriptorButThoseNamed) {
  const Descriptor folder(::open(path("").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const Descriptor leak(::fcntl(folder.get(), F_DUPFD, 100));  // not close-on-exec, and of no number that is given
  std::ofstream(path("given")) << "given";
  const Descriptor given(::open(path("given").c_str(), O_RDONLY | O_CLOEXEC));
  const std::string script = R"(
import os
def is_open(number):
  try: os.fstat(number); return True
  except OSError: return False
print([number for number in range(1024) if is_open(number)], os.read(3, 10), dict(os.environ).keys() - {'PWD', 'LC_CTYPE'}))";
  EXPECT_EQ(output_of(script, {given.get()}), "[0, 1, 2, 3] b'given' set()\n");
}

TEST_F(ReaderSandboxTest, NoNetworkNoProcessNoPrivilege) {
  const std::string script = R"(
import _socket, os, ctypes
def fails(action):
  try: action(); return False
  except OSError: return True
libc = ctypes.CDLL(None, use_errno=True)
print([fails(lambda: _socket.socket(family, kind)) for family in (1, 2, 10, 16) for kind in (1, 2)],
      fails(os.fork), os.getpid(), os.getppid(),
      {(libc.syscall(number, 0, 0, 0, 0), ctypes.get_errno()) for number in (101, 165, 250, 272, 308, 321, 425, 310)}))";
  // ptrace, mount, keyctl, unshare, setns, bpf, io_uring_setup and process_vm_readv of x86-64: ENOSYS
  EXPECT_EQ(output_of(script), "[True, True, True, True, True, True, True, True] True 1 0 {(-1, 38)}\n");
}

TEST_F(ReaderSandboxTest, MemoryIsBounded) {
  EXPECT_EQ(output_of("try: bytearray(1 << 30); print('given')\nexcept MemoryError: print('refused')"), "refused\n");
}

TEST_F(ReaderSandboxTest, LeaseEndsIt) {
  const auto begin = Clock::now();
  const auto process = SandboxedProcess::start(
      {.program = "/usr/bin/python3", .arguments = {"-I", "-S", "-c", "import time\ntime.sleep(60)"}, .descriptors = {}}, begin + 1s);
  ASSERT_TRUE(process);
  const auto end = (*process)->wait();
  EXPECT_TRUE(end.expired);
  EXPECT_TRUE(WIFSIGNALED(end.status));
  EXPECT_LT(Clock::now() - begin, 10s);
  EXPECT_TRUE(comes_true([] { return descendants("python3").empty(); }));
}

// Damaged images: any answer, but an answer, in time. REKEYFS_TEST_DAMAGED_IMAGES: how many of each format.
class DamagedImages : public FormatsTest, public ::testing::WithParamInterface<Format> {
 protected:
  void look() {
    const auto begin = Clock::now();
    const auto facts = probe_disk(image("damaged"), GetParam());
    if (facts) {
      const auto view = open_disk(image("damaged"), GetParam(), facts->size, format_readers_, kUser);
      Bytes part(256 * kKiB);
      for (const std::uint64_t offset : {std::uint64_t{0}, facts->size / 2, facts->size - std::min<std::uint64_t>(facts->size, part.size())}) {
        static_cast<void>(view->read(offset, part));
        static_cast<void>(view->zeros_at(offset));
      }
      ++opened_;
    } else {
      EXPECT_FALSE(facts.error().message.empty());
    }
    EXPECT_LT(Clock::now() - begin, 30s);
  }
  int opened_ = 0;
};

TEST_P(DamagedImages, CostAnErrorAndNoMore) {
  make_disk(2 * kMiB);
  run("qemu-img convert -f raw -O " + std::string(name_of(GetParam())) + " disk image");
  const auto count = static_cast<int>(test::number_from_environment("REKEYFS_TEST_DAMAGED_IMAGES", 8));
  std::mt19937_64 random(static_cast<std::uint64_t>(GetParam()));
  const std::uint64_t size = image()->size();
  for (int round = 0; round < count; ++round) {
    run("cp image damaged");
    const std::uint64_t reach = round % 2 == 0 ? 512 : std::min<std::uint64_t>(size, 512 * kKiB);
    for (int flips = 1 + round % 8; flips > 0; --flips) patch("damaged", random() % reach, std::string(1, static_cast<char>(random())));
    if (round % 4 == 3) std::filesystem::resize_file(path("damaged"), random() % size);
    look();
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, DamagedImages,
                         ::testing::Values(Format::qcow2, Format::qcow, Format::qed, Format::vmdk, Format::vpc, Format::vhdx, Format::vdi),
                         [](const auto& one) { return std::string(name_of(one.param)); });

}  // namespace
}  // namespace rekeyfs::formats
