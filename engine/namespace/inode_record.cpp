#include "engine/namespace/inode_record.h"

#include <array>

namespace rekeyfs::names {
namespace {

struct TypeName {
  ImageType type;
  std::string_view name;
};
constexpr std::array kTypeNames{TypeName{ImageType::none, ""}, TypeName{ImageType::system_disk, "system-disk"},
                                TypeName{ImageType::data_disk, "data-disk"}, TypeName{ImageType::full_ecs, "full-ecs"}};

// Fields that version 1 of the record has not; absent if they have their usual value. Numbers on disk, never reused.
constexpr std::uint8_t kEncryptedOnly = 1;  // ""
constexpr std::uint8_t kQuota = 2;          // bytes u64, images u64
constexpr std::uint8_t kMinDeletionDelay = 3;  // time

void put_key(Writer& out, const std::optional<kms::KeyId>& key) {
  out.put(static_cast<std::uint8_t>(key.has_value()));
  if (key) out.put_raw(*key);
}
std::optional<kms::KeyId> get_key(Reader& in) {
  if (!in.get_flag()) return std::nullopt;
  kms::KeyId key{};
  in.get_into(key);
  return key;
}

void put_image(Writer& out, const ImageRecord& image) {
  out.put_raw(image.id).put(image.layer.value()).put(static_cast<std::uint8_t>(image.state));
  out.put(static_cast<std::uint8_t>(image.type)).put(static_cast<std::uint8_t>(image.is_protected));
  out.put(static_cast<std::uint8_t>(image.disk));
  out.put(static_cast<std::uint8_t>(image.lineage.has_value()));
  if (image.lineage) {
    out.put_raw(image.lineage->source).put_time(image.lineage->replicated).put_time(image.lineage->completed);
    put_key(out, image.lineage->key_before);
  }
  out.put(static_cast<std::uint8_t>(image.findings.has_value()));
  if (image.findings) out.put_string(image.findings->format).put_raw(image.findings->digest);
  out.put_string(image.error);
}
void get_image(Reader& in, ImageRecord& image) {
  in.get_into(image.id);
  image.layer = LayerId{in.get<std::uint64_t>()};
  image.state = static_cast<ImageState>(in.get<std::uint8_t>());
  image.type = static_cast<ImageType>(in.get<std::uint8_t>());
  image.is_protected = in.get_flag();
  image.disk = static_cast<DiskState>(in.get<std::uint8_t>());
  if (in.get_flag()) {
    Lineage& lineage = image.lineage.emplace();
    in.get_into(lineage.source);
    lineage.replicated = in.get_time();
    lineage.completed = in.get_time();
    lineage.key_before = get_key(in);
  }
  if (in.get_flag()) {
    Findings& findings = image.findings.emplace();
    findings.format = in.get_string();
    in.get_into(findings.digest);
  }
  image.error = in.get_string();
}

void put_later(Writer& out, const InodeRecord& inode) {
  if (inode.policy.encrypted_only) LaterFields::put_field(out, kEncryptedOnly, "");
  if (inode.quota.is_set())
    LaterFields::put_field(out, kQuota, Writer().put(inode.quota.bytes).put(inode.quota.images).take());
  if (inode.min_deletion_delay)
    LaterFields::put_field(out, kMinDeletionDelay, Writer().put_time(*inode.min_deletion_delay).take());
  inode.later.put(out);
}
// False if a field that this program knows is malformed.
bool get_later(Reader& in, InodeRecord& inode) {
  inode.later.get(in);
  if (inode.kind != NodeKind::directory) return true;
  inode.policy.encrypted_only = inode.later.take(kEncryptedOnly).has_value();
  if (const auto delay = inode.later.take(kMinDeletionDelay)) {
    Reader time(*delay);
    inode.min_deletion_delay = time.get_time();
    if (!time.finished() || *inode.min_deletion_delay < 0) return false;
  }
  const auto quota = inode.later.take(kQuota);
  if (!quota) return true;
  Reader limits(*quota);
  inode.quota.bytes = limits.get<std::uint64_t>();
  inode.quota.images = limits.get<std::uint64_t>();
  return limits.finished();
}

bool is_sane(const InodeRecord& inode) {
  switch (inode.kind) {
    case NodeKind::directory: return inode.policy.type <= ImageType::full_ecs;
    case NodeKind::symlink: return true;
    case NodeKind::image:
      return inode.image.type <= ImageType::full_ecs && inode.image.state >= ImageState::creating &&
             inode.image.state <= ImageState::error && inode.image.disk <= DiskState::disk;
  }
  return false;
}

}  // namespace

std::string_view name_of(ImageType type) {
  for (const TypeName& row : kTypeNames)
    if (row.type == type) return row.name;
  return "";
}

std::optional<ImageType> image_type_from(std::string_view name) {
  for (const TypeName& row : kTypeNames)
    if (row.name == name && !name.empty()) return row.type;
  return std::nullopt;
}

std::string InodeRecord::encode() const {
  Writer out;
  out.put(static_cast<std::uint8_t>(kind)).put(static_cast<std::uint16_t>(permissions)).put(uid).put(gid).put(links);
  out.put_time(accessed).put_time(modified).put_time(changed).put(parent.value()).put_string(name);
  switch (kind) {
    case NodeKind::directory:
      put_key(out, policy.key);
      out.put(static_cast<std::uint8_t>(policy.fast_create)).put(static_cast<std::uint8_t>(policy.type));
      break;
    case NodeKind::image: put_image(out, image); break;
    case NodeKind::symlink: out.put_string(target); break;
  }
  put_later(out, *this);
  return out.take();
}

Result<InodeRecord> InodeRecord::decode(std::string_view bytes) {
  RK_TRY(check_layout(bytes));
  Reader in(bytes);
  InodeRecord inode;
  inode.kind = static_cast<NodeKind>(in.get<std::uint8_t>());
  inode.permissions = in.get<std::uint16_t>();
  inode.uid = in.get<std::uint32_t>();
  inode.gid = in.get<std::uint32_t>();
  inode.links = in.get<std::uint32_t>();
  inode.accessed = in.get_time();
  inode.modified = in.get_time();
  inode.changed = in.get_time();
  inode.parent = Ino{in.get<std::uint64_t>()};
  inode.name = in.get_string();
  switch (inode.kind) {
    case NodeKind::directory:
      inode.policy.key = get_key(in);
      inode.policy.fast_create = in.get_flag();
      inode.policy.type = static_cast<ImageType>(in.get<std::uint8_t>());
      break;
    case NodeKind::image: get_image(in, inode.image); break;
    case NodeKind::symlink: inode.target = in.get_string(); break;
  }
  const bool sound = get_later(in, inode);
  if (!sound || !in.finished() || !is_sane(inode)) return fail(Errc::corrupt, "an inode record is malformed");
  return inode;
}

}  // namespace rekeyfs::names
