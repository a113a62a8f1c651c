// Unlock: gets the secret of a store from a key file, a passphrase file or the terminal.
//
// Secret bytes are held only in a Credential and in buffers that are wiped.
#pragma once

#include <string>

#include <CLI/CLI.hpp>

#include "engine/base/credential.h"
#include "tools/outcome.h"

namespace rekeyfs::tools {

struct UnlockOptions {
  std::string key_file;         // empty: not given
  std::string passphrase_file;  // empty: not given
};
void add_unlock_options(CLI::App& app, UnlockOptions& options);

// The secret of an existing store at `store`. Asks for a passphrase only if the store uses one.
Outcome<Credential> credential_for(const std::string& store, const UnlockOptions& options);

// The secret of a new store: from the given files, or asked for twice. ExitCode::usage if it is too short.
Outcome<Credential> new_credential(const UnlockOptions& options);

}  // namespace rekeyfs::tools
