#include "engine/images/open_file.h"

#include "engine/types/open_file.h"

namespace rekeyfs {

void OpenFileDeleter::operator()(OpenFile* file) const { delete file; }

OpenFile::~OpenFile() {
  if (!truncation) return;  // else each close would hold up the image's readers behind its writers
  UniqueLock lock(hold->mutex);
  hold->truncations.withdraw(truncation);  // a handle that never flushes
}

void OpenFile::refuse(const Error& error) {
  Lock lock(mutex);
  refused = error;
}

std::optional<Error> OpenFile::refusal() const {
  Lock lock(mutex);
  return refused;
}

}  // namespace rekeyfs
