// SmallStore: a real store with some of everything, made in a scratch directory: a key, a plain and an encrypted
// directory, images, a replica that is not complete, a link, attributes.
#pragma once

#include <fcntl.h>

#include "engine/engine.h"
#include "tests/fuzz/scratch_directory.h"

namespace rekeyfs {

class SmallStore {
 public:
  static Credential credential() { return Credential(Credential::Kind::key_file, std::string(64, 'k')); }

  SmallStore() {
    must(Engine::initialize(path(), credential()));
    open();
    fill();
  }
  ~SmallStore() {
    if (engine_) close();
  }

  std::string path() const { return directory_.path("store"); }
  std::string path(const std::string& name) const { return path() + "/" + name; }
  Engine& engine() { return *engine_; }
  void close() {
    file_.reset();
    must(engine_->close());
    engine_.reset();
  }

  Ino folder() const { return folder_; }
  Ino image() const { return image_; }
  OpenFile& file() { return *file_; }  // the image's

 private:
  static constexpr std::size_t kBytes = 2 * 16384 + 100;

  // Nothing is filled in the background: a replication stays one.
  void open() {
    OpenOptions options;
    options.filler_workers = 0;
    engine_ = must(Engine::open(path(), credential(), options));
  }
  Ino make_image(Ino directory, const std::string& name) {
    Engine::Created created = must(engine_->create(directory, name, 0640, O_RDWR, Caller{}));
    must(engine_->write(*created.file, 0, as_bytes(std::string(kBytes, 'x'))));
    must(engine_->flush(*created.file));
    return created.attributes.ino;
  }
  void fill() {
    must(engine_->create_key("tenant", Caller{}));
    folder_ = must(engine_->make_directory(kRootIno, "folder", 0755, Caller{})).ino;
    must(engine_->set_attribute(folder_, "user.rekeyfs.key", "tenant", Engine::SetAttribute::either, Caller{}));
    must(engine_->set_attribute(folder_, "user.rekeyfs.type", "data-disk", Engine::SetAttribute::either, Caller{}));
    image_ = make_image(kRootIno, "plain");
    make_image(folder_, "secret");
    must(engine_->set_attribute(image_, "user.note", "of mine", Engine::SetAttribute::either, Caller{}));
    must(engine_->set_attribute(image_, "user.long", std::string(6000, 'n'), Engine::SetAttribute::either, Caller{}));
    must(engine_->make_symlink(kRootIno, "link", "folder/secret", Caller{}));
    must(engine_->link(image_, kRootIno, "second"));
    file_ = must(engine_->open_file(image_, O_RDWR, Caller{}));
    Engine::Created replica = must(engine_->create(folder_, "replica", 0640, O_WRONLY, Caller{}));
    must(engine_->copy_range(*file_, 0, *replica.file, 0, kBytes, Caller{}));
    must(engine_->flush(*replica.file));
  }

  const ScratchDirectory directory_;
  std::unique_ptr<Engine> engine_;
  OpenFilePtr file_;
  Ino folder_, image_;
};

}  // namespace rekeyfs
