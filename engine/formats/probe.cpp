// probe_disk(): examines an image with qemu-img in the sandbox and decides whether its disk may be presented.
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "engine/formats/disk_view.h"
#include "engine/formats/image_server.h"
#include "engine/formats/sandboxed_process.h"

namespace rekeyfs::formats {
namespace {

using Json = nlohmann::json;

constexpr const char* kNeedsBacking = "needs a backing file; flatten it with qemu-img convert first";
constexpr const char* kNeedsReplay = "has a log that needs to be replayed; run qemu-img check -r all first";

tl::unexpected<Error> refuse(Format format, const std::string& reason) {
  return fail(Errc::wrong_medium, "the " + std::string(name_of(format)) + " image " + reason);
}

// The format-specific details; an empty object if there are none.
Json details_of(const Json& facts) {
  const auto specific = facts.find("format-specific");
  if (specific == facts.end() || !specific->is_object()) return Json::object();
  const auto data = specific->find("data");
  return data != specific->end() && data->is_object() ? *data : Json::object();
}

bool is_true(const Json& object, const char* name) {
  const auto value = object.find(name);
  return value != object.end() && value->is_boolean() && value->get<bool>();
}

// A differencing VHD has its unchanged data in another file, and QEMU 7.2 silently shows zeros there.
Result<bool> is_differencing_vhd(Content& image) {
  constexpr std::uint64_t kFooter = 512;
  constexpr std::size_t kType = 60;  // offset in a footer, from the Virtual Hard Disk Image Format Specification
  constexpr std::string_view kDifferencing("\0\0\0\4", 4);
  std::array<std::byte, kFooter> footer{};
  for (const std::uint64_t offset : {std::uint64_t{0}, image.size() - std::min(image.size(), kFooter)}) {
    RK_TRY(image.read(offset, footer));
    const std::string_view text = as_text(footer);
    if (text.starts_with("conectix") && text.substr(kType, kDifferencing.size()) == kDifferencing) return true;
  }
  return false;
}

Result<DiskFacts> judge(const Json& facts, Format format) {
  const Json details = details_of(facts);
  const auto parent = details.find("parent-cid");  // a VMDK may have a parent without naming it
  const bool has_parent = parent != details.end() && *parent != std::numeric_limits<std::uint32_t>::max();
  if (has_parent || facts.contains("backing-filename") || facts.contains("full-backing-filename"))
    return refuse(format, kNeedsBacking);
  if (details.contains("data-file"))
    return refuse(format, "stores its data in another file; convert it to a single file with qemu-img convert first");
  const auto extents = details.find("extents");
  if (extents != details.end() && (!extents->is_array() || extents->size() != 1))
    return refuse(format, "consists of several files; convert it to a single file with qemu-img convert first");
  if (is_true(facts, "encrypted") || details.contains("encrypt"))
    return refuse(format, "is encrypted by its own format; decrypt it with qemu-img convert first");
  const auto size = facts.find("virtual-size");
  if (size == facts.end() || !size->is_number_unsigned())
    return fail(Errc::io, "the format reader does not report the size of the disk");
  if (size->get<std::uint64_t>() > kLargestDisk) return refuse(format, "holds a disk of more than 16 TiB");
  return DiskFacts{.size = size->get<std::uint64_t>()};
}

// qemu-img's error message without the program name and our name of the image.
std::string reason_in(const std::string& complaint) {
  if (complaint.find("contains a log that needs to be replayed") != std::string::npos) return kNeedsReplay;
  const auto quoted = complaint.rfind("': ");
  return "cannot be read: " + (quoted == std::string::npos ? complaint : complaint.substr(quoted + 3));
}

std::string source_of(Format format) {
  return "driver=" + std::string(name_of(format)) + ",file.driver=nbd,file.server.type=fd,file.server.str=" +
         std::to_string(SandboxedProcess::kFirstDescriptor);
}

}  // namespace

Result<DiskFacts> probe_disk(const std::shared_ptr<Content>& image, Format format, const Patience& patience) {
  if (format == Format::raw) return DiskFacts{.size = image->size()};
  if (format == Format::vpc) {
    RK_TRY_ASSIGN(const bool differencing, is_differencing_vhd(*image));
    if (differencing) return refuse(format, kNeedsBacking);
  }
  std::array<int, 2> pair{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0)
    return fail(error_from_errno(errno, "create sockets for a format reader"));
  Descriptor theirs(pair[1]);
  ImageServer server(image, Descriptor(pair[0]));
  RK_TRY(server.start());
  RK_TRY_ASSIGN(const auto process,
                SandboxedProcess::start({.program = "/usr/bin/qemu-img",
                                         .arguments = {"info", "--output=json", "--image-opts", source_of(format)},
                                         .descriptors = {theirs.get()}},
                                        SandboxedProcess::Clock::now() + patience.start));
  theirs = {};
  const SandboxedProcess::End end = process->wait();
  server.stop();

  if (const auto failure = server.last_failure()) return fail(*failure);
  if (end.expired) return fail(Errc::io, "the format reader does not examine the image within its time limit");
  const std::string complaint = process->take_complaint();
  const bool exited = WIFEXITED(end.status);
  if (exited && WEXITSTATUS(end.status) == 1 && server.was_shown())
    return refuse(format, reason_in(complaint));
  if (!exited || WEXITSTATUS(end.status) != 0)
    return fail(Errc::io, "the format reader failed to examine the image: " + complaint);
  const Json facts = Json::parse(process->take_output(), nullptr, false);
  if (!facts.is_object()) return fail(Errc::io, "the format reader sent no valid description of the image");
  return judge(facts, format);
}

}  // namespace rekeyfs::formats
