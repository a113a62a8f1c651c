// OpenFile: an image opened by somebody. Made by Files::open() and Files::create(), given back by its deleter.
#pragma once

#include <memory>

namespace rekeyfs {

class OpenFile;
struct OpenFileDeleter {
  void operator()(OpenFile* file) const;
};
using OpenFilePtr = std::unique_ptr<OpenFile, OpenFileDeleter>;

}  // namespace rekeyfs
