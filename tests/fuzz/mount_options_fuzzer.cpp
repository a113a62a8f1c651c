// The list after -o, as passed on by mount(8) from fstab.
#include "tools/mount_options.h"

#include "tests/fuzz/fuzz.h"

namespace rekeyfs {
namespace {

using tools::MountOptionList;
using tools::UnknownOption;

std::string escaped(std::string_view value) {
  std::string text;
  for (char c : value) {
    if (c == ',' || c == '\\') text += '\\';
    text += c;
  }
  return text;
}

std::string text_of(const MountOptionList& list) {
  std::string text = list.read_only ? "ro" : "rw";
  if (list.allow_other) text += ",allow_other";
  if (list.no_exec) text += ",noexec";
  if (list.writeback_cache) text += ",writeback_cache";
  if (list.key_file) text += ",key_file=" + escaped(*list.key_file);
  if (list.passphrase_file) text += ",passphrase_file=" + escaped(*list.passphrase_file);
  if (list.log) text += ",log=" + escaped(*list.log);
  return text;
}

void try_input(ByteView bytes) {
  const auto list = tools::parse_mount_options(as_text(bytes));
  const auto lenient = tools::parse_mount_options(as_text(bytes), UnknownOption::ignore);
  if (!list) return;
  require(lenient && text_of(*lenient) == text_of(*list), "where nothing is unknown nothing is ignored");
  const auto again = tools::parse_mount_options(text_of(*list));
  require(again && text_of(*again) == text_of(*list), "options written down are the same options");
}

}  // namespace
}  // namespace rekeyfs

RK_FUZZ_TARGET(rekeyfs::try_input)
