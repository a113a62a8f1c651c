// Observer: told of changes that the caches of the kernel cannot know. Called without engine locks held.
#pragma once

#include <string_view>

#include "engine/base/ids.h"

namespace rekeyfs {

class Observer {
 public:
  virtual ~Observer() = default;
  virtual void entry_removed(Ino parent, std::string_view name) = 0;
  virtual void content_changed(Ino ino) = 0;     // cached pages and attributes are wrong
  virtual void permissions_changed(Ino ino) = 0;
};

}  // namespace rekeyfs
