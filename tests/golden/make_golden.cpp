// Creates a golden store: `rekeyfs_make_golden DIRECTORY` creates DIRECTORY/store, a RichStore in this build's format,
// and DIRECTORY/manifest.json, which says what a reader must find in it when its journal has been replayed and its
// replication is complete. tests/golden/README.md says when and how a new one is kept.
#include <cstdio>
#include <filesystem>
#include <fstream>

#include <nlohmann/json.hpp>

#include "engine/crypto/hash.h"
#include "tests/support/rich_store.h"

namespace {

using namespace rekeyfs;
using nlohmann::json;

constexpr const char* kKindNames[] = {"", "directory", "image", "symlink"};

std::string digest_of(const std::string& content) {
  crypto::Sha256 hash;
  hash.update(as_bytes(content));
  return to_hex(hash.finish());
}

json facts_of(const test::SeenNode& node) {
  json facts{{"kind", kKindNames[static_cast<std::size_t>(node.kind)]},
             {"permissions", node.permissions},
             {"attributes", node.attributes}};
  if (node.kind == NodeKind::symlink) {
    facts["target"] = node.target;
    return facts;
  }
  facts["encryption"] = node.encryption;
  facts["key"] = node.key.empty() ? json(nullptr) : json(node.key);
  if (node.kind != NodeKind::image) return facts;
  facts["id"] = node.id;
  facts["size"] = node.size;
  facts["sha256"] = digest_of(node.content);
  if (node.boot_bytes > 0) facts["boot"] = node.boot_bytes;
  return facts;
}

// Looked up in a copy: opening a store changes it.
json keys_of(const std::string& store) {
  const std::string copy = store + ".copy";
  test::copy_as_killed(store, copy);
  json keys = json::object();
  {
    OpenOptions options;
    options.filler_workers = 0;
    const auto engine = Engine::open(copy, test::test_credential(), options);
    if (!engine) throw std::runtime_error(test::error_text(engine));
    const std::vector<KeyFacts> all = (*engine)->keys().list().value();
    for (const KeyFacts& key : all)
      keys[key.alias] = {{"id", key.id}, {"version", key.version}, {"state", key.state}};
    if (!(*engine)->close()) throw std::runtime_error("a copy cannot be closed");
  }
  std::filesystem::remove_all(copy);
  return keys;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: rekeyfs_make_golden DIRECTORY\n", stderr);
    return 2;
  }
  try {
    const std::string directory = argv[1];
    std::filesystem::create_directories(directory);
    const test::RichStore rich(directory + "/store");
    for (const std::string& older : rich.older()) std::filesystem::remove_all(older);
    json nodes = json::object();
    for (const auto& [path, node] : rich.last()) nodes[path] = facts_of(node);
    const json manifest{{"nodes", nodes}, {"keys", keys_of(rich.directory())}, {"replicating", {"other/replica.img"}}};
    std::ofstream(directory + "/manifest.json") << manifest.dump(1) << "\n";
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rekeyfs_make_golden: %s\n", error.what());
    return 1;
  }
}
