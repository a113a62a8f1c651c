// The holder's entry in a store's lock file. A user who can write to the store chooses it, and also the name of his
// process; a message shows both to other users.
#include "engine/io/store_lock.h"

#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "tests/fuzz/scratch_directory.h"

namespace rekeyfs {
namespace {

class HeldStore {
 public:
  HeldStore() : lock_(must(io::StoreLock::acquire(directory_.path()))) {}

  Error refusal(std::string_view holder) {
    std::ofstream(directory_.path("lock"), std::ios::binary | std::ios::trunc) << holder;
    const auto second = io::StoreLock::acquire(directory_.path());
    require(!second, "whatever its file says, the lock is held");
    return second.error();
  }

 private:
  const ScratchDirectory directory_;
  const io::StoreLock lock_;
};

// With a '@' in front: the name of this process, and the line that it then writes; else the file as it is.
void try_input(ByteView input) {
  static HeldStore store;
  std::string text(as_text(input));
  if (text.starts_with('@')) {
    prctl(PR_SET_NAME, text.substr(1, 15).c_str());
    text = std::to_string(getpid()) + " " + text.substr(1, 15);
    text.resize(64, ' ');
  }
  const Error refusal = store.refusal(text);
  require(refusal.code == Errc::locked, "a store that is in use is locked, and not damaged");
  const auto moves_cursor = [](char c) { return static_cast<unsigned char>(c) < ' ' || c == '\x7f'; };
  require(std::none_of(refusal.message.begin(), refusal.message.end(), moves_cursor),
          "no holder writes to another's terminal");
  require(refusal.message.size() < 1024, "a message is short");
}

}  // namespace
}  // namespace rekeyfs

RK_FUZZ_TARGET(rekeyfs::try_input)
