// ReportService: implements Reports; collects the facts from the parts of the engine.
#pragma once

#include "engine/audit/audit_log.h"
#include "engine/contract/names.h"
#include "engine/contract/reports.h"
#include "engine/images/rekeyfs_xattrs.h"
#include "engine/keys/key_uses.h"
#include "engine/replication/filler.h"
#include "engine/types/event.h"
#include "engine/types/node_info.h"
#include "engine/types/refusal.h"
#include "engine/types/replication.h"
#include "engine/types/space.h"

namespace rekeyfs::services {

class ReportService final : public Reports {
 public:
  // All arguments must outlive the service.
  ReportService(store::Store& store, const names::Tree& tree, const replication::Filler& filler, audit::AuditLog& audit,
                const keys::KeyUses& key_uses, const images::RekeyfsXattrs& xattrs,
                quota::QuotaBook& quotas, Names& names)
      : store_(store), tree_(tree), filler_(filler), audit_(audit), key_uses_(key_uses), xattrs_(xattrs), quotas_(quotas), names_(names) {}

  Status health() override { return store_.health().is_sound(); }
  std::vector<std::string> unknown_features() override { return store::unknown_flags(store_.features()); }
  Status background() override { return store_.may_write(); }
  Result<Space> space() override;
  Result<Space> space_at(Ino node) override;
  Result<std::optional<QuotaState>> quota(Ino node) override;
  Result<NodeInfo> info(Ino ino) override;
  Result<std::vector<Replication>> replications(Ino under) override;
  std::vector<Refusal> refusals() override;
  Result<std::vector<Event>> events(const EventQuery& query) override { return audit_.find(query); }
  Result<LogVerification> verify_log() override { return audit_.verify(); }
  std::uint64_t newest_event_at_open() override { return audit_.newest_at_load(); }

 private:
  Status describe_layers(Ino ino, NodeInfo& info);
  std::string alias_of(const std::optional<kms::KeyId>& key);
  std::string alias_of(const Result<blocks::LayerRecord>& layer) { return layer ? alias_of(layer->key) : ""; }

  store::Store& store_;
  const names::Tree& tree_;
  const replication::Filler& filler_;
  audit::AuditLog& audit_;
  const keys::KeyUses& key_uses_;
  const images::RekeyfsXattrs& xattrs_;
  quota::QuotaBook& quotas_;
  Names& names_;
};

}  // namespace rekeyfs::services
