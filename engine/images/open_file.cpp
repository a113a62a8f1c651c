#include "engine/images/open_file.h"

#include "engine/types/open_file.h"

namespace rekeyfs {

void OpenFileDeleter::operator()(OpenFile* file) const { delete file; }

OpenFile::~OpenFile() {
  if (!truncation) return;  // fast path: otherwise each close would make readers of the image wait for its writers
  UniqueLock lock(hold->mutex);
  hold->truncations.withdraw(truncation);  // the handle was closed without a FLUSH
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
