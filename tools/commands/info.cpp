// `rekeyfs info`: shows all facts about one image or directory.
#include <cstdio>
#include <memory>
#include <string>

#include "tools/columns.h"
#include "tools/commands/command.h"
#include "tools/human.h"
#include "tools/quota_text.h"
#include "tools/table.h"
#include "tools/target.h"

namespace rekeyfs::tools {
namespace {

using nlohmann::json;

struct Options {
  std::string path;
  UnlockOptions unlock;
  bool as_json = false;
};

void print_fact(const char* name, const std::string& value) {
  std::printf("%s%s\n", pad(name, 14).c_str(), printable(value).c_str());
}

std::string size_text(const json& bytes) {
  auto size = bytes.get<std::uint64_t>();
  return bytes_text(size) + (size < 1024 ? "" : " (" + std::to_string(size) + " bytes)");
}

void print_facts(const json& info) {
  print_fact("path", info.value("path", ""));
  print_fact("kind", info.value("kind", ""));
  print_fact("size", size_text(info.at("size")));
  print_fact("permissions", info.value("permissions", ""));
  print_fact("owner", "uid " + info.at("uid").dump() + ", gid " + info.at("gid").dump());
  print_fact("links", info.at("links").dump());
  print_fact("modified", moment_text(info.value("modified", "")));
  print_fact("accessed", moment_text(info.value("accessed", "")));
  print_fact("changed", moment_text(info.value("changed", "")));
}

void print_store(const json& info) {
  if (info.at("store").is_string()) print_fact("store", info.at("store").get<std::string>());
  if (info.contains("read_only") && !info.at("read_only").is_null())
    print_fact("read-only", info.at("read_only").get<std::string>());
  for (const json& feature : info.value("unknown_features", json::array()))
    print_fact("feature", feature.get<std::string>() + ", not known to this rekeyfs");
  const json& space = info.at("space");
  print_fact("disk", bytes_text(space.at("available").get<std::uint64_t>()) + " of " +
                         bytes_text(space.at("total").get<std::uint64_t>()) + " available");
  print_fact("names", space.at("nodes").dump() + " files, directories and links");
}

void print_attributes(const json& info) {
  Table table({"ATTRIBUTE", "VALUE"});
  for (const char* member : {"attributes", "user_attributes"})
    for (const auto& [name, value] : info.at(member).items()) table.add({name, value.get<std::string>()});
  std::printf("\n%s", table.text().c_str());
}

std::string key_text(const json& layer) {
  std::string key = layer.value("key", "");
  return key.empty() ? "plain" : key + " v" + layer.at("key_version").dump();
}

void print_layers(const json& info) {
  Table table({"LAYER", "KEY", "KEY ID", "SUITE", "BLOCK", "STORED"});
  for (const json& layer : info.at("layers"))
    table.add({layer.at("id").dump(), key_text(layer), layer.value("key_id", ""), layer.value("suite", ""),
               bytes_text(layer.at("block_size").get<std::uint64_t>()),
               bytes_text(layer.at("stored").get<std::uint64_t>())});
  std::printf("\n%s", table.text().c_str());
}

std::string keys_text(const json& keys) {
  std::string text;
  for (const json& need : keys) text += (text.empty() ? "" : "; ") + need.value("key", "") + ", " + need.value("until", "");
  return text.empty() ? "none" : text;
}

std::string lineage_text(const json& lineage, const std::string& id) {
  if (lineage.is_null()) return "made here, or imported";
  const std::string source = lineage.value("source", ""), key = lineage.value("key_before", "");
  std::string text = source == id ? "encrypted anew" : "copied from " + source;
  text += ", " + moment_text(lineage.value("replicated", "")) + ", " + (key.empty() ? "plain before" : "before with " + key);
  return text + (lineage.at("completed").is_null() ? "; still needs its source" : "");
}

std::string boot_text(const json& boot) {
  if (boot.is_null()) return "none";
  return bytes_text(boot.at("bytes").get<std::uint64_t>()) + ", recorded " + moment_text(boot.value("recorded", ""));
}

void print_content(const json& info) {
  if (info.value("kind", "") == "image") {
    print_fact("lineage", lineage_text(info.at("lineage"), info.at("attributes").value("user.rekeyfs.id", "")));
    print_fact("keys needed", keys_text(info.at("keys_needed")));
    print_fact("boot profile", boot_text(info.at("boot")));
  }
  if (!info.at("attributes").empty() || !info.at("user_attributes").empty()) print_attributes(info);
  if (!info.at("layers").empty()) print_layers(info);
}

void print_info(const json& info) {
  print_facts(info);
  if (info.contains("space")) print_store(info);
  if (!info.at("quota").is_null()) print_fact("quota", quota_text(info.at("quota")));
  if (info.at("attributes").is_null()) std::puts("\nthe rest is told to those who may read it");
  else print_content(info);
}

Outcome<ExitCode> run(const Options& options) {
  RK_TRY_ASSIGN(std::unique_ptr<Target> target, Target::open(options.path, options.unlock));
  RK_TRY_ASSIGN(json info, target->call({{"command", "info"}}));
  if (options.as_json)
    std::printf("%s\n", info.dump(2).c_str());
  else
    print_info(info);
  return ExitCode::ok;
}

}  // namespace

void add_info(CLI::App& parent, Chosen& chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* app = parent.add_subcommand("info", "Show everything about an image or a directory");
  app->add_option("PATH", options->path, "A path inside a mount, or a store")->required()->type_name("");
  app->add_flag("--json", options->as_json, "Print JSON");
  add_unlock_options(*app, options->unlock);
  chosen.on(*app, [options] { return run(*options); });
}

}  // namespace rekeyfs::tools
