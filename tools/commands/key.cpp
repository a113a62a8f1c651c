// `rekeyfs key …`: the key service of a store.
#include <cstdio>
#include <memory>
#include <string>

#include "tools/commands/command.h"
#include "tools/human.h"
#include "tools/table.h"
#include "tools/target.h"

namespace rekeyfs::tools {
namespace {

using nlohmann::json;

struct Options {
  std::string alias, path;
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

void print_created(const json& key) {
  std::printf("created the key %s (id %s)\n", printable(text_of(key, "alias")).c_str(), text_of(key, "id").c_str());
}

void print_list(const json& answer) {
  Table table({"ALIAS", "ID", "STATE", "VERSION", "OWNER", "CREATED"});
  for (const json& key : answer.at("keys"))
    table.add({text_of(key, "alias"), text_of(key, "id"), text_of(key, "state"), number_of(key, "version"),
               number_of(key, "owner"), moment_text(text_of(key, "created"))});
  std::fputs(table.text().c_str(), stdout);
}

void print_uses(const json& answer) {
  auto elsewhere = answer.at("uses_elsewhere").get<std::uint64_t>();
  if (answer.at("uses").empty() && elsewhere == 0) {
    std::puts("no image needs it");
    return;
  }
  Table table({"NEEDED BY", "BECAUSE"});
  for (const json& use : answer.at("uses")) table.add({text_of(use, "path"), text_of(use, "reason")});
  if (elsewhere > 0) table.add({std::to_string(elsewhere) + " more", "images that only the key's owner sees listed"});
  std::fputs(table.text().c_str(), stdout);
}

void print_key(const json& key) {
  print_list({{"keys", json::array({key})}});
  std::puts("");
  print_uses(key);
}

Outcome<ExitCode> run(const Options& options, const char* command, Print print) {
  RK_TRY_ASSIGN(std::unique_ptr<Target> target, Target::open(options.path, options.unlock));
  json request{{"command", command}};
  if (!options.alias.empty()) request["alias"] = options.alias;
  RK_TRY_ASSIGN(json answer, target->call(std::move(request)));
  RK_TRY(target->close());
  if (options.as_json)
    std::printf("%s\n", answer.dump(2).c_str());
  else
    print(answer);
  return ExitCode::ok;
}

struct Verb {
  const char* name;
  const char* summary;
  const char* alias_help;  // null: the verb takes no key
  const char* command;     // of fs/control.h
  Print print;
};
constexpr Verb kVerbs[] = {
    {"create", "Create a key; the caller owns it", "Name of the new key", "key-create", print_created},
    {"list", "List the keys", nullptr, "key-list", print_list},
    {"show", "Show a key and which images need it", "Name or id of the key", "key-show", print_key},
};

void add_verb(CLI::App& parent, Chosen& chosen, const Verb& verb) {
  auto options = std::make_shared<Options>();
  CLI::App* app = parent.add_subcommand(verb.name, verb.summary);
  if (verb.alias_help != nullptr) app->add_option("ALIAS", options->alias, verb.alias_help)->required()->type_name("");
  app->add_option("PATH", options->path, "A path inside a mount, or a store")->required()->type_name("");
  app->add_flag("--json", options->as_json, "Print JSON");
  add_unlock_options(*app, options->unlock);
  chosen.on(*app, [options, verb] { return run(*options, verb.command, verb.print); });
}

}  // namespace

void add_key(CLI::App& parent, Chosen& chosen) {
  CLI::App* app = parent.add_subcommand("key", "Create and show the keys of a store");
  app->require_subcommand(0, 1);
  for (const Verb& verb : kVerbs) add_verb(*app, chosen, verb);
}

}  // namespace rekeyfs::tools
