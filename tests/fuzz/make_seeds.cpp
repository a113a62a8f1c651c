// make_seeds DIRECTORY: creates the seed inputs of the corpora, one folder per target, from a real store and from user
// input. Inputs found by fuzzing are added to them (`run --keep`).
#include <fstream>

#include "engine/check/bench.h"
#include "tests/fuzz/memory_storage.h"
#include "tests/fuzz/small_store.h"

namespace rekeyfs {
namespace {

namespace stdfs = std::filesystem;

class Seeds {
 public:
  explicit Seeds(std::string directory) : directory_(std::move(directory)) {}

  void add(const std::string& target, std::string_view bytes) {
    const std::string folder = directory_ + "/" + target;
    stdfs::create_directories(folder);
    crypto::Sha256 hash;
    hash.update(as_bytes(bytes));
    std::ofstream(folder + "/" + to_hex(hash.finish()).substr(0, 40), std::ios::binary) << bytes;
  }
  void add(const std::string& target, char kind, std::string_view bytes) {
    add(target, std::string(1, kind) + std::string(bytes));
  }

 private:
  const std::string directory_;
};

std::string content_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// A store as a kill leaves it: its journal has all of its changes.
class KilledStore {
 public:
  KilledStore() {
    SmallStore store;
    stdfs::copy(store.path(), path(), stdfs::copy_options::recursive);
  }
  std::string path() const { return directory_.path("store"); }

 private:
  const ScratchDirectory directory_;
};

void add_journal(Seeds& seeds, const catalog::Journal::History& history) {
  Writer all, appended;
  appended.put(std::uint8_t{1}).put(static_cast<std::uint8_t>(history.records.size()));
  for (const auto& record : history.records) {
    all.put_string(record.payload);
    appended.put(std::uint8_t{1}).put_string(record.payload);
    seeds.add("recovery", Writer().put_string(record.payload).text());
    seeds.add("catalog_record", 'o', record.payload);
    for (const catalog::Op& op : must(catalog::decode_ops(record.payload)))
      if (op.kind == catalog::Op::Kind::layer) seeds.add("catalog_record", 'c', op.value);
  }
  seeds.add("recovery", all.text());
  seeds.add("journal", appended.text());
  // Three records with a new segment between them; then one byte changed.
  Writer few;
  few.put(std::uint8_t{1}).put(std::uint8_t{5});
  for (const char* payload : {"one", "", "two", "", "three"}) {
    if (*payload == '\0')
      few.put(std::uint8_t{0});
    else
      few.put(std::uint8_t{1}).put_string(payload);
  }
  seeds.add("journal", few.text());
  few.put(std::uint8_t{1}).put(std::uint8_t{4}).put(std::uint8_t{1}).put(std::uint16_t{60}).put(std::uint8_t{1});
  seeds.add("journal", few.text());
}

void add_segment(Seeds& seeds) {
  MemoryStorage storage;
  const auto journal =
      must(catalog::Journal::start(storage, Uuid{std::byte{7}}, EpochId{1},
                                   must(crypto::Aead::create(fixed_key(), crypto::NonceSource::counting)), 1));
  must(journal->append("one"));
  seeds.add("journal", '\0', storage.bytes("journal/0000000000000001"));
}

void add_records(Seeds& seeds, catalog::Catalog& catalog) {
  must(catalog.scan("", "", [&](std::string_view key, std::string_view value) {
    seeds.add("catalog_record", key[0], value);
    return true;
  }));
}

class OneRecord final : public kms::KeyRecords {
 public:
  Result<std::vector<std::pair<kms::KeyId, std::string>>> all() override {
    return std::vector<std::pair<kms::KeyId, std::string>>{};
  }
  Status put(const kms::KeyId&, std::string_view bytes) override {
    record = bytes;
    return {};
  }
  Status remove(const kms::KeyId&) override { return {}; }
  std::string record;
};

void add_keys(Seeds& seeds) {
  const crypto::Key root = fixed_key();
  OneRecord records;
  const auto masters = must(kms::EmbeddedKeys::create(root));
  const auto keys = must(kms::KeyDirectory::open(root, records, *masters));
  const kms::KeyId id = must(keys->create("tenant", 1000)).id;
  const auto add = [&] {
    seeds.add("key_record", 'r', records.record.substr(0, records.record.size() - sizeof(crypto::Digest)));
  };
  add();
  must(keys->grant(id, 1001));
  must(keys->rotate(id));
  add();
  must(keys->grant_declassification(id, 1002));
  add();
  must(keys->revoke_declassification(id, 1002));
  constexpr std::size_t kVersionAt = 1 + 16 + 1 + 4 + 6;  // of the newest version, behind the alias
  records.record[kVersionAt] = 9;                         // which it does not have
  add();
  must(keys->schedule_deletion(id, now()));
  add();
  for (const char* alias : {"tenant", "a", "a.b_c-9", "-a", ".", "0123456789abcdef0123456789ABCDEF", "a b"})
    seeds.add("key_record", 'a', alias);
}

void add_superblocks(Seeds& seeds, const std::string& store) {
  const std::string bytes = content_of(store + "/" + std::string(store::kSuperblockName));
  seeds.add("superblock", '\0', bytes);
  seeds.add("superblock", '\1', bytes);
  MemoryStorage storage;
  must(store::create_superblock(storage, Credential(Credential::Kind::passphrase, "correct horse"), {10, 8, 1}));
  seeds.add("superblock", '\1', storage.bytes(std::string(store::kNewSuperblockName)));
}

void add_catalog_damage(Seeds& seeds, const std::string& store) {
  const std::string pages = content_of(store + "/catalog/data.mdb");
  seeds.add("salvage", '\0', pages.substr(0, 5 * 4096));
  for (std::uint8_t what = 0; what < 5; ++what)
    for (std::uint8_t page = 0; page < 8; page += 2)
      seeds.add("salvage", Writer()
                               .put(std::uint8_t{1})
                               .put(std::uint8_t{1})
                               .put(what)
                               .put(page)
                               .put(std::uint8_t{3})
                               .put(std::uint64_t{7})
                               .text());
}

// What is done with a table; then one of two levels, of which a leaf holds two blocks.
void add_tables(Seeds& seeds) {
  const std::string set =
      Writer().put(std::uint8_t{1}).put(std::uint8_t{30}).put(std::uint64_t{1} << 38).put(std::uint64_t{77}).take();
  const std::string clear = Writer()
                                .put(std::uint8_t{2})
                                .put(std::uint8_t{30})
                                .put(std::uint64_t{1} << 31)
                                .put(std::uint64_t{900})
                                .put(std::uint8_t{0})
                                .take();
  const std::string steps = set + std::string(1, '\3') + clear + std::string("\3\5\0", 3) + set.substr(1, 9);
  for (std::uint8_t levels = 0; levels < 3; ++levels) {
    Writer table;
    table.put(std::uint8_t{1}).put(levels).put(std::uint8_t{0});
    for (std::uint8_t level = levels; level > 0; --level)
      table.put(std::uint8_t{0}).put(std::uint8_t{1}).put(std::uint8_t{0}).put(std::uint8_t{0});
    table.put(std::uint8_t{0}).put(std::uint8_t{2});
    for (std::uint8_t slot = 0; slot < 2; ++slot)
      table.put(slot)
          .put(std::uint8_t{2})
          .put(std::uint16_t{99})
          .put(std::uint64_t{slot})
          .put(std::uint32_t{1})
          .put(std::uint8_t{0});
    seeds.add("block_table", table.text() + steps + "\6");
  }
  seeds.add("block_table",
            Writer().put(std::uint8_t{0}).put_string(std::string(100, 'p')).put(std::uint8_t{0}).text() + steps);
}

void add_texts(Seeds& seeds) {
  for (const char* request : {R"({"command":"session"})",
                              R"({"command":"sync"})",
                              R"({"command":"status","path":"folder"})",
                              R"({"command":"progress"})",
                              R"({"command":"state","path":"/folder/secret"})",
                              R"({"command":"info","path":"plain"})",
                              R"({"command":"info","path_hex":"706c61696e"})",
                              R"({"command":"log","most":3,"after":1})",
                              R"({"command":"token"})",
                              R"({"command":"choose","plain":true})",
                              R"({"command":"refusal"})",
                              R"({"command":"plan","directory":"t","key":"tenant","estimate":false})",
                              R"({"command":"rotate","alias":"tenant","path":"folder"})",
                              R"({"command":"key-create","alias":"other"})",
                              R"({"command":"key-list"})",
                              R"({"command":"key-show","alias":"tenant"})",
                              R"({"command":"key-rotate","alias":"tenant"})",
                              R"({"command":"key-disable","alias":"tenant","force":true})",
                              R"({"command":"key-disable","alias":"tenant","force":3})",
                              R"({"command":"key-enable","alias":"tenant"})",
                              R"({"command":"key-delete","alias":"other","delay":9,"force":true})",
                              R"({"command":"key-cancel-deletion","alias":"other"})",
                              R"({"command":"key-grant","alias":"tenant","user":1001})",
                              R"({"command":"key-revoke","alias":"tenant","user":1001})",
                              R"(["no","object"])"})
    for (const char from : {'\0', '\1', '\3', '\5'}) seeds.add("control", std::string{'r', from} + request);
  for (const char* answer :
       {R"({"ok":{"pid":1}})", R"({"error":{"code":"no space left","message":"why"}})", R"({"error":{}})", "{", "[]"})
    seeds.add("control", 'a', answer);
  const auto attribute = [&](std::uint8_t which, std::string_view name, std::string_view value) {
    seeds.add("attribute", Writer().put(which).put_string(name).put_raw(as_bytes(value)).text());
  };
  for (std::uint8_t which = 0x80; which <= 0x82; ++which) {
    for (const char* value : {"1", "0", "yes"}) attribute(which, which == 0x82 ? "protected" : "fast_create", value);
    for (const char* value : {"system-disk", "data-disk", "full-ecs", "floppy"}) attribute(which, "type", value);
    attribute(which, "key", "tenant");
    for (const char* name : {"id", "status", "progress", "format", "receipt", "unknown"}) attribute(which, name, "x");
  }
  for (const char* name : {"note", "mime_type", "own"}) attribute(2, name, "\xff\x01 any bytes");
  attribute(0x82, "type", "\xe2\x82");  // a character cut off
  for (const char* anchor : {"@0:@1:@2:@3:@4:@5", "@0:@1:1:@3:@4:@5", "@0:@1:99999:@3:@4:@5", "@0:@1:@2:1:@4:@5", "@0",
                             "@0:@1:@2:@3:@4:0", "rekeyfs1:x:1:1:a:b", "::::::"})
    seeds.add("anchor", anchor);
  for (const char* options :
       {"ro,noexec,allow_other", "rw,key_file=/root/a\\,b", "passphrase_file=/p,log=/var/log/l,writeback_cache",
        "key_file=a,passphrase_file=b", "_netdev,nofail,x-systemd.automount,user=me", "log=a\\\\b", "no_such_option",
        "key_file="})
    seeds.add("mount_options", options);
  seeds.add("mountinfo",
            "36 35 98:0 / / rw,noatime shared:1 - ext4 /dev/root rw\n40 36 0:35 / /mnt/a\\040b rw master:2 - "
            "fuse.rekeyfs /srv/store\\134 rw\n");
  seeds.add("mountinfo", "36 35 98:0 / /mnt rw - ext4\n");
  seeds.add("mountinfo", "36 35 98:0 / /mnt rw - \n- - - - - - - -\n\\777 \\040\n");
  for (const char* holder :
       {"@rekeyfs", "@a\x1b[2J", "@ x ", "1 init\n", "99999999999999999999 x\n", "self rekeyfs\n", "../1 x", ""})
    seeds.add("store_lock", holder);
  for (const char* head : {"QFI\xfb", "QED", "KDMV", "COWD", "# Disk DescriptorFile", "vhdxfile", "conectix"}) {
    seeds.add("image_format", std::string(head) + std::string("\0\0\0\2\0\0\0\0", 8) + std::string(32, '\0'));
    seeds.add("image_format", std::string(40, '\0') + head + std::string(33, '\0'));
  }
}

void make(Seeds seeds) {
  const KilledStore killed;
  const auto bench = must(check::Bench::open(killed.path(), SmallStore::credential()));
  must(bench->open_catalog());
  add_journal(seeds, bench->history());
  SmallStore closed;
  closed.close();
  const auto whole = must(check::Bench::open(closed.path(), SmallStore::credential()));
  must(whole->open_catalog());
  add_records(seeds, whole->catalog());
  add_superblocks(seeds, closed.path());
  add_catalog_damage(seeds, closed.path());
  add_segment(seeds);
  add_keys(seeds);
  add_tables(seeds);
  add_texts(seeds);
}

}  // namespace
}  // namespace rekeyfs

int main(int count, char** arguments) {
  if (count != 2) {
    std::fprintf(stderr, "usage: make_seeds DIRECTORY\n");
    return 2;
  }
  spdlog::set_level(spdlog::level::off);
  rekeyfs::make(rekeyfs::Seeds(arguments[1]));
  return 0;
}
