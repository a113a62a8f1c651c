// FileService: implements Files: the lifetime of open files, and whether a call may change the store. images::Content
// and images::Copies do the work on content.
#pragma once

#include "engine/boot/boot_profiles.h"
#include "engine/contract/files.h"
#include "engine/images/copies.h"
#include "engine/images/copy_planner.h"

namespace rekeyfs::services {

class FileService final : public Files {
 public:
  struct Parts {  // all must outlive the service
    store::Store& store;
    names::Tree& tree;
    images::LayerSwap::Parts swaps;
    images::OpenImages& open;
    images::Content& content;
    images::Copies& copies;
    images::FastCreate& fast_create;
    images::Boots& boots;
    images::Initializer& initializer;
    images::Refusals& refusals;
    quota::QuotaBook& quotas;
    const images::ImageStatus& status;
    const images::CopyPlanner& planner;
    const boot::BootProfiles& profiles;
    Observer& observer;
  };
  explicit FileService(const Parts& parts) : parts_(parts) {}

  // Implements setattr of a size; `file`, if not null, is the handle used (ftruncate).
  Status resize(Ino ino, std::uint64_t size, OpenFile* file, const Caller& caller);

  Result<Created> create(Ino parent, std::string_view name, mode_t mode, int flags, const Caller& caller) override;
  Result<OpenFilePtr> open(Ino ino, int flags, const Caller& caller) override;
  Result<std::size_t> read(OpenFile& file, std::uint64_t offset, ByteSpan out) override {
    return parts_.content.read(file.image(), offset, out, file.boot.get());
  }
  Result<std::size_t> write(OpenFile& file, std::uint64_t offset, ByteView bytes) override;
  Status allocate(OpenFile& file, Allocate what, bool keep_size, std::uint64_t offset, std::uint64_t size) override;
  Result<std::uint64_t> seek(OpenFile& file, std::uint64_t offset, Seek what) override {
    return parts_.content.seek(file.image(), offset, what);
  }
  Result<std::uint64_t> copy_range(OpenFile& in, std::uint64_t offset_in, OpenFile& out, std::uint64_t offset_out,
                                   std::uint64_t size, const Caller& caller) override;
  Status flush(OpenFile& file) override;
  Status sync(OpenFile& file) override;
  Status choose_target(OpenFile& file, const TargetChoice& choice, const Caller& caller) override;
  std::optional<Error> refusal_of(OpenFile& file) override { return file.refusal(); }
  Result<ReplicationPlan> plan_replication(OpenFile& source, Ino directory, const TargetChoice& choice, const Caller& caller) override {
    return parts_.planner.plan(source.ino(), directory, choice, caller);
  }
  TransformRate transform_rate(OpenFile& source) override { return parts_.planner.transform_rate(source.image()); }
  Result<std::optional<BootReads>> boot_reads(Ino image) override;
  Status clear_boot_profile(Ino image, const Caller& caller) override;

 private:
  // Called before each change through a handle.
  Status begin_change(OpenFile& file);
  Status check_changeable(const names::InodeRecord& inode) const;
  // Refuses what would be plain in a directory that is encrypted only.
  Status check_plain(Ino directory, const Caller& caller, const std::function<std::string()>& path);
  // Whether the caller may use the image's key and, if the image is truncated, the key of its new content.
  Status check_keys(const images::Image& image, bool truncates, const Caller& caller);
  Result<Created> open_created(Ino ino, Ino parent, std::string_view name, int flags, const Caller& caller, const names::Policy& policy);
  Status begin_truncation(OpenFile& file);
  Status remove_refused(OpenFile& file);
  // For a handle that replaces the content of an existing image.
  Status choose_for_replacement(OpenFile& file, const TargetChoice& choice, const Caller& caller);
  Status may_make_plain(const OpenFile& file, const Caller& caller) const;
  Status become(OpenFile& file, const Result<std::optional<kms::KeyId>>& key, const TargetChoice& choice, const Caller& caller);
  Result<std::optional<boot::BootProfiles::Found>> boot_profile_of(Ino image);

  const Parts parts_;
};

}  // namespace rekeyfs::services
