// SmallStore: a real store with examples of everything, in a scratch directory: a key, a plain and an encrypted
// directory, images, an incomplete replica, a link, attributes.
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
  OpenFile& file() { return *file_; }  // handle of the image

 private:
  static constexpr std::size_t kBytes = 2 * 16384 + 100;

  // No background filling: a replication stays in progress.
  void open() {
    OpenOptions options;
    options.filler_workers = 0;
    engine_ = must(Engine::open(path(), credential(), options));
  }
  Ino make_image(Ino directory, const std::string& name) {
    Files::Created created = must(engine_->files().create(directory, name, 0640, O_RDWR, kOperator));
    must(engine_->files().write(*created.file, 0, as_bytes(std::string(kBytes, 'x'))));
    must(engine_->files().flush(*created.file));
    return created.attributes.ino;
  }
  void fill() {
    must(engine_->keys().create("tenant", kOperator));
    folder_ = must(engine_->names().make_directory(kRootIno, "folder", 0755, kOperator)).ino;
    must(engine_->names().setxattr(folder_, "user.rekeyfs.key", "tenant", XattrMode::either, kOperator));
    must(engine_->names().setxattr(folder_, "user.rekeyfs.type", "data-disk", XattrMode::either, kOperator));
    image_ = make_image(kRootIno, "plain");
    make_image(folder_, "secret");
    must(engine_->names().setxattr(image_, "user.note", "of mine", XattrMode::either, kOperator));
    must(engine_->names().setxattr(image_, "user.long", std::string(6000, 'n'), XattrMode::either, kOperator));
    must(engine_->names().make_symlink(kRootIno, "link", "folder/secret", kOperator));
    must(engine_->names().link(image_, kRootIno, "second"));
    file_ = must(engine_->files().open(image_, O_RDWR, kOperator));
    Files::Created replica = must(engine_->files().create(folder_, "replica", 0640, O_WRONLY, kOperator));
    must(engine_->files().copy_range(*file_, 0, *replica.file, 0, kBytes, kOperator));
    must(engine_->files().flush(*replica.file));
  }

  const ScratchDirectory directory_;
  std::unique_ptr<Engine> engine_;
  OpenFilePtr file_;
  Ino folder_, image_;
};

}  // namespace rekeyfs
