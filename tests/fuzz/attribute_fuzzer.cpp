// Extended attributes: names and values that any user may set, both user.rekeyfs.* and others.
#include <algorithm>

#include "tests/fuzz/small_store.h"

namespace rekeyfs {
namespace {

constexpr std::string_view kOurs = "user.rekeyfs.";
constexpr std::size_t kMaxValue = 65536;  // the kernel's limit; it passes on no more

Ino node_of(SmallStore& store, std::uint8_t which) {
  if (which % 3 == 0) return kRootIno;
  return which % 3 == 1 ? store.folder() : store.image();
}

// Not that, for example, which is answered for an image that has none of its own.
bool is_own(Engine& engine, Ino node, const std::string& name) {
  const auto names = must(engine.names().listxattr(node));
  return name.starts_with(kOurs) || std::find(names.begin(), names.end(), name) != names.end();
}

// Sets one and takes it away again: the store is then as it was.
void try_input(ByteView input) {
  static SmallStore store;
  Engine& engine = store.engine();
  Reader in(input);
  const auto which = in.get<std::uint8_t>();
  const Ino node = node_of(store, which & 0x3f);
  const std::string name = (which & 0x80 ? std::string(kOurs) : "user.") + in.get_string();
  const std::string_view value = as_text(in.get_raw(in.left())).substr(0, kMaxValue);
  if (name.find('\0') != std::string::npos) return;  // the kernel ends a name there

  const auto before = is_own(engine, node, name) ? engine.names().getxattr(node, name) : fail(Errc::no_attribute);
  const Status set = engine.names().setxattr(node, name, value, XattrMode::either, kOperator);
  const auto after = engine.names().getxattr(node, name);
  if (!set) return require(!before || (after && *after == *before), "a refused value changes nothing");
  require(after.has_value() || value == "0", "what was set is there");
  require(name.starts_with(kOurs) || *after == value, "a user's value comes back as it was");
  must(engine.names().listxattr(node));
  must(engine.reports().info(node));
  if (before)
    must(engine.names().setxattr(node, name, *before, XattrMode::replace, kOperator));
  else if (after)
    must(engine.names().removexattr(node, name, kOperator));
}

}  // namespace
}  // namespace rekeyfs

RK_FUZZ_TARGET(rekeyfs::try_input)
