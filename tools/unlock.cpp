#include "tools/unlock.h"

#include <utility>

#include "engine/engine.h"
#include "tools/prompt.h"
#include "tools/secret_file.h"

namespace rekeyfs::tools {
namespace {

constexpr std::size_t kShortestPassphrase = 8;

Outcome<Credential> passphrase_from_file(const std::string& path) {
  RK_TRY_ASSIGN(SecretBytes bytes, read_secret_file(path, SecretPart::first_line));
  return Credential(Credential::Kind::passphrase, std::move(bytes));
}

Outcome<Credential> key_from_file(const std::string& path) {
  RK_TRY_ASSIGN(SecretBytes bytes, read_secret_file(path, SecretPart::whole_file));
  return Credential(Credential::Kind::key_file, std::move(bytes));
}

Outcome<Credential> ask_passphrase(const std::string& question) {
  RK_TRY_ASSIGN(SecretBytes line, ask_secret(question));
  return Credential(Credential::Kind::passphrase, std::move(line));
}

Outcome<Credential> ask_new_passphrase() {
  RK_TRY_ASSIGN(Credential first, ask_passphrase("New passphrase of the store: "));
  RK_TRY_ASSIGN(Credential second, ask_passphrase("The same again: "));
  if (first.expose_bytes() != second.expose_bytes())
    return fail(ExitCode::wrong_secret, "the two passphrases differ; no store was created: run the command again");
  return first;
}

}  // namespace

void add_unlock_options(CLI::App& app, UnlockOptions& options) {
  CLI::Option* key = app.add_option("--key-file", options.key_file, "Unlock the store with the bytes of FILE");
  CLI::Option* passphrase =
      app.add_option("--passphrase-file", options.passphrase_file, "Unlock the store with the first line of FILE");
  key->type_name("FILE")->excludes(passphrase);
  passphrase->type_name("FILE");
}

Outcome<Credential> credential_for(const std::string& store, const UnlockOptions& options) {
  Result<Credential::Kind> kind = Engine::unlocked_by(store);
  if (!kind && (kind.error().code == Errc::not_found || kind.error().code == Errc::not_directory)) return fail(ExitCode::not_a_store, describe(kind.error()));
  if (!kind) return tl::unexpected<Failure>(kind.error());
  if (*kind == Credential::Kind::key_file) {
    if (options.key_file.empty())
      return fail(
          ExitCode::wrong_secret,
          "the store " + store + " is unlocked with a key file; give --key-file FILE (mount option key_file=FILE)");
    return key_from_file(options.key_file);
  }
  if (!options.key_file.empty())
    return fail(ExitCode::wrong_secret,
                "the store " + store +
                    " is unlocked with a passphrase, not with a key file; give "
                    "--passphrase-file FILE (mount option passphrase_file=FILE), or no option to be asked");
  if (!options.passphrase_file.empty()) return passphrase_from_file(options.passphrase_file);
  return ask_passphrase("Passphrase of " + store + ": ");
}

Outcome<Credential> new_credential(const UnlockOptions& options) {
  if (!options.key_file.empty()) return key_from_file(options.key_file);
  Outcome<Credential> passphrase =
      options.passphrase_file.empty() ? ask_new_passphrase() : passphrase_from_file(options.passphrase_file);
  if (passphrase && passphrase->expose_bytes().size() < kShortestPassphrase)
    return fail(ExitCode::usage, "the passphrase is shorter than 8 bytes; choose a longer one");
  return passphrase;
}

}  // namespace rekeyfs::tools
