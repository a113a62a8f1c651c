// Observer: is told about changes that the kernel's caches cannot know of. Called without engine locks held.
#pragma once

#include <string_view>
#include <vector>

#include "engine/base/ids.h"

namespace rekeyfs {

class Observer {
 public:
  virtual ~Observer() = default;
  virtual void entry_removed(Ino parent, std::string_view name) = 0;
  virtual void content_changed(Ino ino) = 0;     // cached pages and attributes are outdated
  // The same of several images, whose pages are then dropped together.
  virtual void contents_changed(const std::vector<Ino>& images) {
    for (const Ino image : images) content_changed(image);
  }
  virtual void permissions_changed(Ino ino) = 0;
};

// Forwards to the observer that is set, if any.
class ObserverRelay final : public Observer {
 public:
  void set(Observer* observer) { observer_ = observer; }  // call before any other use; may be null
  void entry_removed(Ino parent, std::string_view name) override {
    if (observer_) observer_->entry_removed(parent, name);
  }
  void content_changed(Ino ino) override {
    if (observer_) observer_->content_changed(ino);
  }
  void contents_changed(const std::vector<Ino>& images) override {
    if (observer_) observer_->contents_changed(images);
  }
  void permissions_changed(Ino ino) override {
    if (observer_) observer_->permissions_changed(ino);
  }

 private:
  Observer* observer_ = nullptr;
};

}  // namespace rekeyfs
