#include "fs/privileges.h"

#include <sys/stat.h>

namespace rekeyfs::fs {

// Set-gid without group execution is not a privilege: it marked mandatory locking.
Status leave_privileges_out(Engine& engine, Ino ino, AttributeChange& change) {
  RK_TRY_ASSIGN(const Attributes attributes, engine.names().getattr(ino));
  if (attributes.kind != NodeKind::image) return {};
  mode_t taken = S_ISUID;
  if (attributes.permissions & S_IXGRP) taken |= S_ISGID;
  if (attributes.permissions & taken) change.permissions = attributes.permissions & ~taken;
  return {};
}

// A reply to a write contains no permissions, so the kernel must be told to drop its cached ones.
Status take_privileges_away(Context& context, Ino ino, const Caller& caller) {
  AttributeChange change;
  RK_TRY(leave_privileges_out(context.engine, ino, change));
  if (!change.permissions) return {};
  RK_TRY(context.engine.names().setattr(ino, change, caller));
  context.notifier.permissions_changed(ino);
  return {};
}

}  // namespace rekeyfs::fs
