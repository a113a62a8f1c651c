// `rekeyfs key …`: manages the master keys of a store.
#include <cstdio>
#include <map>
#include <memory>
#include <string>

#include "tools/commands/command.h"
#include "tools/human.h"
#include "tools/table.h"
#include "tools/target.h"
#include "tools/user.h"

namespace rekeyfs::tools {
namespace {

using nlohmann::json;

constexpr std::uint64_t kUsualDelay = 7 * 24 * 3600;  // default delay of `key delete`, in seconds

struct Options {
  std::string alias, user, path, right;
  std::uint64_t delay = kUsualDelay;
  bool force = false;
  UnlockOptions unlock;
  bool as_json = false;
};
using Print = void (*)(const json& answer);

std::string text_of(const json& facts, const char* member) {
  return facts.value(member, "");
}
std::string number_of(const json& facts, const char* member) {
  return std::to_string(facts.at(member).get<std::uint64_t>());
}
std::string alias_of(const json& key) {
  return printable(text_of(key, "alias"));
}

std::string users_of(const json& key, const char* member) {
  std::string users;
  for (const json& user : key.value(member, json::array())) users += (users.empty() ? "" : ",") + user_text(user.get<uid_t>());
  return users.empty() ? "-" : users;
}

std::string state_of(const json& key) {
  return key.at("deletion").is_null() ? text_of(key, "state") : "to be deleted " + moment_text(text_of(key, "deletion"));
}

// Old versions are kept until all data keys are rewrapped.
std::string versions_of(const json& key) {
  const std::string oldest = number_of(key, "oldest_version"), newest = number_of(key, "version");
  return oldest == newest ? newest : newest + " (" + oldest + " kept)";
}

void print_created(const json& key) {
  std::printf("created the key %s (id %s)\n", alias_of(key).c_str(), text_of(key, "id").c_str());
}
void print_rotated(const json& key) {
  std::printf("the key %s has version %s; data keys are wrapped with it\n", alias_of(key).c_str(), number_of(key, "version").c_str());
}
void print_state(const json& key) {
  std::printf("the key %s is %s\n", alias_of(key).c_str(), text_of(key, "state").c_str());
}
void print_deletion(const json& key) {
  std::printf("the key %s will be deleted at %s, if the store stays mounted; `rekeyfs key cancel-deletion` keeps it\n", alias_of(key).c_str(),
              moment_text(text_of(key, "deletion")).c_str());
}
void print_grants(const json& key) {
  std::printf("the key %s may be used by its owner %s, the store's operators, and: %s\n", alias_of(key).c_str(),
              user_text(key.at("owner").get<uid_t>()).c_str(), users_of(key, "grantees").c_str());
  std::printf("its content may be declassified by the former two, and: %s\n", users_of(key, "declassifiers").c_str());
}

void print_list(const json& answer) {
  Table table({"ALIAS", "ID", "STATE", "VERSION", "OWNER", "GRANTED TO", "DECLASSIFIED BY", "CREATED"});
  for (const json& key : answer.at("keys"))
    table.add({text_of(key, "alias"), text_of(key, "id"), state_of(key), versions_of(key),
               user_text(key.at("owner").get<uid_t>()), users_of(key, "grantees"), users_of(key, "declassifiers"), moment_text(text_of(key, "created"))});
  std::fputs(table.text().c_str(), stdout);
}

void print_uses(const json& answer) {
  const auto& unseen = answer.at("uses_elsewhere");  // null for who only has a grant
  const auto elsewhere = unseen.is_number() ? unseen.get<std::uint64_t>() : 0;
  if (answer.at("uses").empty() && elsewhere == 0) {
    std::puts("no image needs it");
    return;
  }
  Table table({"NEEDED BY", "BECAUSE", "UNTIL"});
  for (const json& use : answer.at("uses")) table.add({text_of(use, "path"), text_of(use, "reason"), text_of(use, "until")});
  if (elsewhere > 0) table.add({std::to_string(elsewhere) + " more", "images in directories that you may not list", ""});
  std::fputs(table.text().c_str(), stdout);
}

void print_key(const json& key) {
  print_list({{"keys", json::array({key})}});
  std::puts("");
  print_uses(key);
}

enum class Takes { nothing, key, key_and_user };

struct Verb {
  const char* name;
  const char* summary;
  Takes takes;
  const char* command;  // command name in fs/control.h
  Print print;
};
constexpr Verb kVerbs[] = {
    {"create", "Create a key; the caller owns it", Takes::key, "key-create", print_created},
    {"list", "List the keys", Takes::nothing, "key-list", print_list},
    {"show", "Show a key, and which images need it until when", Takes::key, "key-show", print_key},
    {"rotate", "Give a key a new version and wrap all data keys with it", Takes::key, "key-rotate", print_rotated},
    {"disable", "Make every image of a key unreadable, until it is enabled", Takes::key, "key-disable", print_state},
    {"enable", "Make a disabled key usable again", Takes::key, "key-enable", print_state},
    {"grant", "Let another user use a key", Takes::key_and_user, "key-grant", print_grants},
    {"revoke", "Take a grant back", Takes::key_and_user, "key-revoke", print_grants},
    {"delete", "Delete a key after a delay; its images are lost then", Takes::key, "key-delete", print_deletion},
    {"cancel-deletion", "Keep a key that is to be deleted, and enable it", Takes::key, "key-cancel-deletion", print_state},
};

Outcome<ExitCode> run(const Options& options, const Verb& verb) {
  json request{{"command", verb.command}, {"force", options.force}, {"delay", options.delay}};
  if (verb.takes != Takes::nothing) request["alias"] = options.alias;
  if (verb.takes == Takes::key_and_user) {
    RK_TRY_ASSIGN(request["user"], user_named(options.user));
  }
  if (!options.right.empty()) request["right"] = options.right;
  RK_TRY_ASSIGN(std::unique_ptr<Target> target, Target::open(options.path, options.unlock));
  RK_TRY_ASSIGN(json answer, target->call(std::move(request)));
  RK_TRY(target->close());
  if (const std::string warning = text_of(answer, "warning"); !warning.empty())
    std::fprintf(stderr, "rekeyfs: warning: %s\n", printable(warning).c_str());
  if (options.as_json)
    std::printf("%s\n", answer.dump(2).c_str());
  else
    verb.print(answer);
  return ExitCode::ok;
}

void add_options_of(CLI::App& app, Options& options, const std::string& verb) {
  if (verb == "grant" || verb == "revoke")
    app.add_option("--right", options.right, verb == "grant" ? "The right to grant, instead of the right to use the key: declassify"
                                                             : "The only right to take back: declassify (default: all)")
        ->check(CLI::IsMember({"declassify"}))
        ->type_name("RIGHT");
  static const std::map<std::string, std::uint64_t> kUnits{{"s", 1}, {"m", 60}, {"h", 3600}, {"d", 24 * 3600}};
  if (verb == "disable" || verb == "delete") app.add_flag("--force", options.force, verb == "delete" ? "Although images need the key; for operators, with less than the least delay of the store"
                                                    : "Although images need the key");
  if (verb == "delete")
    app.add_option("--after", options.delay, "Delay, with a unit: s, m, h or d (default: 7d)")
        ->transform(CLI::AsNumberWithUnit(kUnits, CLI::AsNumberWithUnit::UNIT_REQUIRED, "TIME"))
        ->type_name("TIME");
}

void add_verb(CLI::App& parent, Chosen& chosen, const Verb& verb) {
  auto options = std::make_shared<Options>();
  CLI::App* app = parent.add_subcommand(verb.name, verb.summary);
  if (verb.takes != Takes::nothing) app->add_option("ALIAS", options->alias, "Name or id of the key")->required()->type_name("");
  if (verb.takes == Takes::key_and_user) app->add_option("USER", options->user, "Name or number of the user")->required()->type_name("");
  app->add_option("PATH", options->path, "A path inside a mount, or a store")->required()->type_name("");
  add_options_of(*app, *options, verb.name);
  app->add_flag("--json", options->as_json, "Print JSON");
  add_unlock_options(*app, options->unlock);
  chosen.on(*app, [options, verb] { return run(*options, verb); });
}

}  // namespace

void add_key(CLI::App& parent, Chosen& chosen) {
  CLI::App* app = parent.add_subcommand("key", "Create, show and manage the keys of a store");
  app->require_subcommand(0, 1);
  for (const Verb& verb : kVerbs) add_verb(*app, chosen, verb);
}

}  // namespace rekeyfs::tools
