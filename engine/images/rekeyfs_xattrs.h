// RekeyfsXattrs: the user.rekeyfs.* extended attributes, answered by name and never listed. Thread-safe.
//
// Each attribute is one row of a table in the .cpp file: on which nodes it is, how it is answered, and, if users may set
// it, how a value is parsed and put into the record.
#pragma once

#include <functional>
#include <span>

#include "engine/audit/audit_log.h"
#include "engine/images/image_status.h"
#include "engine/types/caller.h"
#include "engine/types/xattr.h"

namespace rekeyfs::images {

inline constexpr std::string_view kRekeyfsPrefix = "user.rekeyfs.";
inline constexpr std::string_view kMimeType = "user.mime_type";

class RekeyfsXattrs {
 public:
  // All outlive it.
  RekeyfsXattrs(store::Store& store, names::Tree& tree, const ImageStatus& status, const replication::Filler& filler,
                quota::QuotaBook& quotas, audit::AuditLog& audit)
      : store_(store), tree_(tree), status_(status), filler_(filler), quotas_(quotas), audit_(audit) {}

  // `name` without the prefix. Errc::no_attribute if the node has no such value.
  Result<std::string> get(Ino ino, std::string_view name) const;
  // Errc::exists, Errc::no_attribute: as `how` asks. Errc::not_permitted if the attribute is read-only or unknown, or the
  // caller is neither root nor the owner. Errc::invalid, Errc::no_key, Errc::key_revoked: the value.
  Status set(Ino ino, std::string_view name, std::string_view value, XattrMode how, const Caller& caller);
  Status remove(Ino ino, std::string_view name, const Caller& caller);
  std::vector<std::string> names_with_values(Ino ino) const;  // whole names, sorted
  // What user.mime_type answers of an image if nobody set it.
  Result<std::string> detected_mime_type(Ino ino) const;

 private:
  struct Node {
    Ino ino;
    const names::InodeRecord& inode;
    const names::ImageRecord& image() const { return inode.image; }
    const names::Policy& policy() const { return inode.policy; }
  };
  using Edit = std::function<void(names::InodeRecord&)>;
  struct Row {
    std::string_view name;
    Result<std::string> (RekeyfsXattrs::*get)(const Node&) const;
    // Null for read-only attributes. parse() is called before the transaction that the edit takes place in.
    Result<Edit> (RekeyfsXattrs::*parse)(std::string_view value) const = nullptr;
    bool (*is_set)(const names::InodeRecord&) = nullptr;
    void (*clear)(names::InodeRecord&) = nullptr;
    bool by_operators = false;  // a rule of the store: set and cleared by operators only
    bool of_root = false;       // on the root directory only
    // Null, or called before the transaction of a change that the caller may make.
    Status (RekeyfsXattrs::*prepare)() = nullptr;
  };
  static const Row kOnDirectory[], kOnImage[];
  static std::span<const Row> rows_of(const names::InodeRecord& inode);
  static const Row* find(const names::InodeRecord& inode, std::string_view name);
  // Records a value that differs afterwards in the audit log, in the same transaction.
  Status change(Ino ino, const Row& row, const Caller& caller, const std::function<Status(names::InodeRecord&)>& edit);

  // On directories: the policy.
  Result<std::string> policy_key(const Node& node) const { return alias_of(node.policy().key); }
  Result<std::string> policy_key_id(const Node& node) const;
  Result<std::string> policy_encryption(const Node& node) const;
  Result<std::string> policy_encrypted_only(const Node& node) const;
  Result<std::string> policy_fast_create(const Node& node) const;
  Result<std::string> policy_type(const Node& node) const;
  Result<std::string> min_deletion_delay(const Node& node) const;
  Result<Edit> parse_min_deletion_delay(std::string_view value) const;
  Result<Edit> parse_policy_key(std::string_view value) const;
  Result<Edit> parse_policy_encrypted_only(std::string_view value) const;
  Result<Edit> parse_policy_fast_create(std::string_view value) const;
  Result<Edit> parse_policy_type(std::string_view value) const;

  // On directories: the quota.
  Result<std::string> quota(const Node& node) const;
  Result<std::string> usage(const Node& node) const;
  Result<Edit> parse_quota(std::string_view value) const;
  Status prepare_quota() { return quotas_.begin_use(); }
  void put_quota_index(catalog::WriteTxn& txn, Ino ino, const names::InodeRecord& inode) const;

  // On images.
  Result<std::string> id(const Node& node) const { return to_uuid_text(node.image().id); }
  Result<std::string> status(const Node& node) const;
  Result<std::string> progress(const Node& node) const;
  Result<std::string> source(const Node& node) const;
  Result<std::string> type(const Node& node) const;
  Result<std::string> fast_create(const Node& node) const;
  Result<std::string> protection(const Node& node) const;
  Result<std::string> error(const Node& node) const;
  Result<std::string> stored(const Node& node) const;
  Result<std::string> format(const Node& node) const;
  Result<std::string> digest(const Node& node) const;
  Result<std::string> receipt(const Node& node) const;
  Result<std::string> key(const Node& node) const;
  Result<std::string> key_id(const Node& node) const;
  Result<std::string> encryption(const Node& node) const;
  Result<Edit> parse_type(std::string_view value) const;
  Result<Edit> parse_protection(std::string_view value) const;

  Result<std::optional<kms::KeyId>> key_of_layer(const Node& node) const;
  Result<std::string> alias_of(const std::optional<kms::KeyId>& key) const;

  store::Store& store_;
  names::Tree& tree_;
  const ImageStatus& status_;
  const replication::Filler& filler_;
  quota::QuotaBook& quotas_;
  audit::AuditLog& audit_;
};

}  // namespace rekeyfs::images
