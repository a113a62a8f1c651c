// Attributes: the user.rekeyfs.* extended attributes, each with how it is answered and who may set it. Answered by
// name, never listed. Thread-safe.
#pragma once

#include "engine/images/image_status.h"
#include "engine/types/caller.h"
#include "engine/types/xattr.h"

namespace rekeyfs::images {

inline constexpr std::string_view kOurPrefix = "user.rekeyfs.";
inline constexpr std::string_view kMimeType = "user.mime_type";

class OurAttributes {
 public:
  OurAttributes(store::Store& store, names::Tree& tree, const ImageStatus& status, const replication::Filler& filler)
      : store_(store), tree_(tree), status_(status), filler_(filler) {}

  // `name` without the prefix. Errc::no_attribute if the node has no such value.
  Result<std::string> get(Ino ino, std::string_view name) const;
  // Errc::exists, Errc::no_attribute: as `how` asks.
  Status set(Ino ino, std::string_view name, std::string_view value, XattrMode how, const Caller& caller);
  Status remove(Ino ino, std::string_view name, const Caller& caller);
  std::vector<std::string> names_with_values(Ino ino) const;  // whole names, sorted
  // What user.mime_type answers of an image if nobody set it.
  Result<std::string> detected_mime_type(Ino ino) const;

 private:
  Result<std::string> get_of_directory(const names::InodeRecord& inode, std::string_view name) const;
  Result<std::string> get_of_image(Ino ino, const names::InodeRecord& inode, std::string_view name) const;
  static Result<std::string> receipt_of(const names::ImageRecord& image, const std::optional<names::Findings>& findings,
                                        const std::optional<kms::KeyId>& key_after);
  Result<std::string> progress_of(Ino ino, const names::InodeRecord& inode) const;
  Result<std::string> alias_of(const std::optional<kms::KeyId>& key) const;
  Status set_on_directory(names::InodeRecord& inode, std::string_view name, std::string_view value) const;
  static Status set_on_image(names::InodeRecord& inode, std::string_view name, std::string_view value);
  Status change(Ino ino, const Caller& caller, const std::function<Status(names::InodeRecord&)>& edit);

  store::Store& store_;
  names::Tree& tree_;
  const ImageStatus& status_;
  const replication::Filler& filler_;
};

}  // namespace rekeyfs::images
