// FileService: Files over Images: whether a call may change the store is decided here, what it does there.
#pragma once

#include "engine/boot/boot_profiles.h"
#include "engine/contract/files.h"
#include "engine/contract/names.h"
#include "engine/images/images.h"
#include "engine/types/boot_reads.h"
#include "engine/types/caller.h"
#include "engine/types/content.h"
#include "engine/types/open_file.h"
#include "engine/types/replication_plan.h"
#include "engine/types/target_choice.h"
#include "engine/types/transform_rate.h"

namespace rekeyfs::services {

class FileService final : public Files {
 public:
  // All outlive it.
  FileService(store::Store& store, names::Tree& tree, images::Images& images, const boot::BootProfiles& profiles, Names& names)
      : store_(store), tree_(tree), images_(images), profiles_(profiles), names_(names) {}

  Result<Created> create(Ino parent, std::string_view name, mode_t mode, int flags, const Caller& caller) override;
  Result<OpenFilePtr> open(Ino ino, int flags, const Caller& caller) override { return images_.open(ino, flags, caller); }
  Result<std::size_t> read(OpenFile& file, std::uint64_t offset, ByteSpan out) override { return images_.read(file, offset, out); }
  Result<std::size_t> write(OpenFile& file, std::uint64_t offset, ByteView bytes) override {
    return images_.write(file, offset, bytes);
  }
  Status allocate(OpenFile& file, Allocate what, bool keep_size, std::uint64_t offset, std::uint64_t size) override {
    return images_.allocate(file, what, keep_size, offset, size);
  }
  Result<std::uint64_t> seek(OpenFile& file, std::uint64_t offset, Seek what) override { return images_.seek(file, offset, what); }
  Result<std::uint64_t> copy_range(OpenFile& in, std::uint64_t offset_in, OpenFile& out, std::uint64_t offset_out,
                                   std::uint64_t size, const Caller& caller) override {
    return images_.copy_range(in, offset_in, out, offset_out, size, caller);
  }
  Status flush(OpenFile& file) override { return images_.flush(file); }
  Status sync(OpenFile& file) override { return images_.sync(file); }
  Status choose_target(OpenFile& file, const TargetChoice& choice, const Caller& caller) override {
    return images_.choose_target(file, choice, caller);
  }
  std::optional<Error> refusal_of(OpenFile& file) override { return images_.refusal_of(file); }
  Result<ReplicationPlan> plan_replication(OpenFile& source, Ino directory, const TargetChoice& choice, const Caller& caller) override {
    return images_.plan(source, directory, choice, caller);
  }
  TransformRate transform_rate(OpenFile& source) override { return images_.transform_rate(source); }
  Result<std::optional<BootReads>> boot_reads(Ino image) override;
  Status clear_boot_profile(Ino image, const Caller& caller) override;

 private:
  Result<std::optional<boot::BootProfiles::Found>> boot_profile_of(Ino image);

  store::Store& store_;
  names::Tree& tree_;
  images::Images& images_;
  const boot::BootProfiles& profiles_;
  Names& names_;
};

}  // namespace rekeyfs::services
