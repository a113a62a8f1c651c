// OpenFile: an open image. Files::open() and Files::create() return it; its deleter releases it.
#pragma once

#include <memory>

namespace rekeyfs {

class OpenFile;
struct OpenFileDeleter {
  void operator()(OpenFile* file) const;
};
using OpenFilePtr = std::unique_ptr<OpenFile, OpenFileDeleter>;

}  // namespace rekeyfs
