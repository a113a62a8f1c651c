#include "fs/commands/call.h"

namespace rekeyfs::fs {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

Result<std::string> from_hex(std::string_view hex) {
  std::string bytes;
  if (hex.size() % 2 != 0) return fail(Errc::invalid, "path_hex has an odd number of digits");
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    const int high = hex_digit(hex[i]), low = hex_digit(hex[i + 1]);
    if (high < 0 || low < 0) return fail(Errc::invalid, "path_hex is not made of the digits 0-9 and a-f");
    bytes += static_cast<char>(high * 16 + low);
  }
  return bytes;
}

Result<std::string> requested_path(const Call& call) {
  if (call.request.contains("path")) return required_text(call, "path");
  if (!call.request.contains("path_hex")) return std::string();
  RK_TRY_ASSIGN(const std::string hex, required_text(call, "path_hex"));
  return from_hex(hex);
}

}  // namespace

Result<std::string> required_text(const Call& call, const char* member) {
  const auto found = call.request.find(member);
  if (found == call.request.end() || !found->is_string() || found->get_ref<const std::string&>().empty())
    return fail(Errc::invalid, "the command needs the string \"" + std::string(member) + "\"");
  return found->get<std::string>();
}

Result<uid_t> required_user(const Call& call) {
  const auto found = call.request.find("user");
  if (found == call.request.end() || !found->is_number_unsigned() || found->get<std::uint64_t>() >= static_cast<uid_t>(-1))
    return fail(Errc::invalid, "the command needs the user id \"user\"");
  return found->get<uid_t>();
}

Result<Timestamp> required_delay(const Call& call) {
  constexpr std::uint64_t kMaxSeconds = 366u * 24 * 3600;
  const auto found = call.request.find("delay");
  if (found == call.request.end() || !found->is_number_unsigned() || found->get<std::uint64_t>() > kMaxSeconds)
    return fail(Errc::invalid, "the command needs \"delay\", in seconds, at most a year");
  return static_cast<Timestamp>(found->get<std::uint64_t>()) * 1'000'000'000;
}

Result<std::uint64_t> number_or(const Call& call, const char* member, std::uint64_t otherwise) {
  const auto found = call.request.find(member);
  if (found == call.request.end()) return otherwise;
  if (!found->is_number_integer() || *found < 0)
    return fail(Errc::invalid, "\"" + std::string(member) + "\" must be a non-negative integer");
  return found->get<std::uint64_t>();
}

Result<Attributes> requested_node(const Call& call) {
  RK_TRY_ASSIGN(const std::string path, requested_path(call));
  return call.view.reach(path);
}

// Whoever has opened an image to read it may go on reading, as with any descriptor.
Status check_reader(const Call& call, const Attributes& node) {
  const bool has_opened_it = call.requester.file && node.ino == call.requester.through;
  return has_opened_it ? Status{} : call.view.may_read(node);
}

Result<Attributes> readable_node(const Call& call) {
  RK_TRY_ASSIGN(const Attributes node, requested_node(call));
  RK_TRY(check_reader(call, node));
  return node;
}

}  // namespace rekeyfs::fs
