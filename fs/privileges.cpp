#include "fs/privileges.h"

#include <sys/stat.h>

namespace rekeyfs::fs {

// Set-gid without execution by the group is not a privilege: it marked mandatory locking.
Status take_privileges_away(Engine& engine, Ino ino, AttributeChange& change) {
  RK_TRY_ASSIGN(const Attributes attributes, engine.names().getattr(ino));
  if (attributes.kind != NodeKind::image) return {};
  mode_t taken = S_ISUID;
  if (attributes.permissions & S_IXGRP) taken |= S_ISGID;
  if (attributes.permissions & taken) change.permissions = attributes.permissions & ~taken;
  return {};
}

Status take_privileges_away(Engine& engine, Ino ino, const Caller& caller) {
  AttributeChange change;
  RK_TRY(take_privileges_away(engine, ino, change));
  if (change.permissions) RK_TRY(engine.names().setattr(ino, change, caller));
  return {};
}

}  // namespace rekeyfs::fs
