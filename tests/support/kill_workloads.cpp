#include "tests/support/kill_workloads.h"

#include <fcntl.h>

namespace rekeyfs::test {
namespace {

constexpr std::uint64_t kBlock = 16384;

Step write(const std::string& path, std::uint64_t offset, std::string bytes) {
  return [=](StoreUser& user) { return user.write(path, offset, bytes); };
}
Step close_file(const std::string& path) {
  return [=](StoreUser& user) { return user.close_file(path); };
}
Step create(const std::string& path, int flags = O_RDWR) {
  return [=](StoreUser& user) { return user.create(path, flags); };
}
Step truncate(const std::string& path, std::uint64_t size) {
  return [=](StoreUser& user) { return user.truncate(path, size); };
}
Step unlink(const std::string& path) {
  return [=](StoreUser& user) { return user.unlink(path); };
}
Step change_key(const std::string& alias, KeyChange::Kind kind) {
  return [=](StoreUser& user) { return user.change_key(alias, kind); };
}
Step rotate(const std::string& directory, const std::string& key) {
  return [=](StoreUser& user) { return user.rotate(directory, key); };
}
Step checkpoint() {
  return [](StoreUser& user) { return user.engine().sync_all(); };
}
Step settle() {
  return [](StoreUser& user) { return user.settle(); };
}
void add(Steps& steps, const Steps& more) { steps.insert(steps.end(), more.begin(), more.end()); }
// Creates an image with that content.
Steps image(const std::string& path, const std::string& bytes) { return {create(path), write(path, 0, bytes), close_file(path)}; }
Steps copy(const std::string& from, const std::string& to) {
  return {create(to), [=](StoreUser& user) { return user.copy(from, to); }, close_file(to), close_file(from)};
}

void plan_import(std::mt19937_64& random, Steps&, Steps& steps) {
  for (const std::string path : {"plain/new", "a/new"}) {
    steps.push_back(create(path));
    std::uint64_t at = 0;
    for (const std::uint64_t size : {4 * kBlock, 3 * kBlock, kBlock / 2 + random() % 100}) {
      steps.push_back(write(path, at, random_bytes(random, size)));
      at += size;
    }
    steps.push_back([=](StoreUser& user) {
      AttributeChange change;
      change.permissions = 0400;
      change.modified = StoreUser::kLongAgo - 5;
      return user.change(path, change);
    });
    steps.push_back([=](StoreUser& user) { return user.set(path, "user.comment", "imported"); });
    steps.push_back(close_file(path));
    steps.push_back(checkpoint());
  }
}

void plan_write(std::mt19937_64& random, Steps& before, Steps& steps) {
  add(before, image("a/image", random_bytes(random, 8 * kBlock)));
  for (int round = 0; round < 2; ++round) {
    for (const std::uint64_t size : {kBlock, std::uint64_t{100}, 3 * kBlock}) {
      steps.push_back(write("a/image", random() % (6 * kBlock), random_bytes(random, size)));
    }
    steps.push_back(write("a/image", 2 * kBlock, random_bytes(random, 2 * kBlock)));
    // Superseded slots become idle, and are punched if the next checkpoint finds the layer at rest.
    steps.push_back(checkpoint());
    steps.push_back(write("a/image", 2 * kBlock, random_bytes(random, kBlock)));
    steps.push_back([](StoreUser& user) { return user.zero("a/image", kBlock + 77, 3 * kBlock); });
    steps.push_back(truncate("a/image", 5 * kBlock + random() % kBlock));
    steps.push_back(write("a/image", 9 * kBlock, random_bytes(random, 1000)));
    steps.push_back(truncate("a/image", 8 * kBlock));
    steps.push_back(checkpoint());
    steps.push_back(checkpoint());
  }
}

void plan_sync(std::mt19937_64& random, Steps& before, Steps& steps) {
  add(before, image("a/image", random_bytes(random, 4 * kBlock)));
  for (int i = 0; i < 6; ++i) {
    steps.push_back(write("a/image", random() % (4 * kBlock), random_bytes(random, 1 + random() % (2 * kBlock))));
    steps.push_back([](StoreUser& user) { return user.sync("a/image"); });
    if (i % 3 == 2) steps.push_back(checkpoint());
  }
  steps.push_back(create("plain/synchronous", O_RDWR | O_SYNC));
  steps.push_back(write("plain/synchronous", 0, random_bytes(random, 2 * kBlock)));
  steps.push_back([](StoreUser& user) -> Status {
    RK_TRY_ASSIGN(const Ino plain, user.ino("plain"));
    return user.engine().names().sync_directory(plain);
  });
}

void plan_replicate(std::mt19937_64& random, Steps& before, Steps& steps) {
  add(before, image("plain/image", random_bytes(random, 12 * kBlock + 33)));
  add(steps, copy("plain/image", "a/replica"));
  steps.push_back([](StoreUser& user) { return user.read("a/replica", 3 * kBlock, 2 * kBlock); });  // copy-on-read
  steps.push_back(write("plain/image", kBlock, random_bytes(random, 100)));
  steps.push_back(write("a/replica", 5 * kBlock, random_bytes(random, 3000)));
  for (const char* path : {"plain/image", "a/replica"}) steps.push_back(close_file(path));
  steps.push_back(settle());
  add(steps, copy("a/replica", "b/replica"));
  steps.push_back(checkpoint());
  add(steps, copy("plain/image", "plain/clone"));
  steps.push_back(write("plain/clone", 0, random_bytes(random, 100)));
  steps.push_back(settle());
  steps.push_back(checkpoint());
}

// Several pieces for the filler; afterwards the base is unused.
void plan_fill(std::mt19937_64& random, Steps& before, Steps& steps) {
  add(before, image("plain/image", random_bytes(random, 150 * kBlock)));
  add(steps, copy("plain/image", "a/replica"));
  steps.push_back(unlink("plain/image"));
  steps.push_back(checkpoint());
  steps.push_back(settle());
  steps.push_back(checkpoint());
  steps.push_back(checkpoint());
}

void plan_rotate_directory(std::mt19937_64& random, Steps& before, Steps& steps) {
  for (const char* name : {"a/one", "a/two", "a/three"}) add(before, image(name, random_bytes(random, 5 * kBlock)));
  steps.push_back(rotate("a", "key-b"));
  steps.push_back(write("a/two", kBlock, random_bytes(random, 200)));
  steps.push_back(close_file("a/two"));
  steps.push_back(settle());
  steps.push_back(checkpoint());
  steps.push_back(rotate("a", "key-a"));
  steps.push_back(checkpoint());
  steps.push_back(settle());
  steps.push_back(checkpoint());
}

void plan_rotate_key(std::mt19937_64& random, Steps& before, Steps& steps) {
  for (const char* name : {"a/one", "a/two", "b/three"}) add(before, image(name, random_bytes(random, 2 * kBlock)));
  for (int i = 0; i < 2; ++i) {
    steps.push_back(change_key("key-a", KeyChange::Kind::rotate));
    add(steps, image("a/new" + std::to_string(i), random_bytes(random, kBlock)));
    steps.push_back(settle());
    steps.push_back(change_key("key-b", KeyChange::Kind::rotate));
    steps.push_back(checkpoint());
  }
  steps.push_back(settle());
}

void plan_delete(std::mt19937_64& random, Steps& before, Steps& steps) {
  for (const char* name : {"plain/one", "plain/two", "a/three", "a/open"}) add(before, image(name, random_bytes(random, 3 * kBlock)));
  before.push_back([](StoreUser& user) { return user.make_directory("plain/folder"); });
  add(before, copy("plain/one", "plain/clone"));
  steps.push_back(write("a/open", 0, random_bytes(random, 100)));
  steps.push_back(unlink("a/open"));
  steps.push_back(unlink("plain/one"));
  steps.push_back(checkpoint());
  steps.push_back([](StoreUser& user) { return user.rename("plain/two", "plain/clone"); });
  steps.push_back(unlink("a/three"));
  steps.push_back([](StoreUser& user) { return user.remove_directory("plain/folder"); });
  steps.push_back(checkpoint());
  steps.push_back(checkpoint());
  steps.push_back(unlink("plain/clone"));
  steps.push_back(checkpoint());
}

void plan_keys(std::mt19937_64& random, Steps& before, Steps& steps) {
  using enum KeyChange::Kind;
  add(before, image("a/image", random_bytes(random, 2 * kBlock)));
  steps.push_back([](StoreUser& user) { return user.create_key("key-c"); });
  steps.push_back([](StoreUser& user) { return user.make_directory("c"); });
  steps.push_back([](StoreUser& user) { return user.set("c", "user.rekeyfs.key", "key-c"); });
  add(steps, image("c/image", random_bytes(random, kBlock)));
  steps.push_back(change_key("key-c", grant));
  steps.push_back([](StoreUser& user) { return user.change_key("key-c", grant, true); });  // the first sets a flag of the store
  steps.push_back(change_key("key-a", disable));
  steps.push_back(checkpoint());
  steps.push_back(change_key("key-c", revoke));
  steps.push_back(change_key("key-a", enable));
  steps.push_back([](StoreUser& user) { return user.create_key("key-d"); });
  steps.push_back(change_key("key-d", schedule_deletion));
  steps.push_back(checkpoint());
  steps.push_back(change_key("key-d", cancel_deletion));
}

void plan_names(std::mt19937_64& random, Steps& before, Steps& steps) {
  add(before, image("plain/image", random_bytes(random, kBlock)));
  add(before, image("plain/other", random_bytes(random, 2 * kBlock)));
  steps.push_back([](StoreUser& user) { return user.make_directory("plain/folder"); });
  steps.push_back([](StoreUser& user) { return user.make_symlink("plain/link", "image"); });
  steps.push_back([](StoreUser& user) { return user.link("plain/image", "plain/folder/second"); });
  steps.push_back([](StoreUser& user) { return user.rename("plain/image", "plain/folder/moved"); });
  steps.push_back(checkpoint());
  steps.push_back([](StoreUser& user) { return user.rename("plain/other", "plain/folder/moved", RenameMode::exchange); });
  steps.push_back([](StoreUser& user) { return user.set("plain/link", "user.comment", "about a link"); });
  steps.push_back([](StoreUser& user) { return user.set("plain/folder", "user.comment", std::string(3000, 'c')); });
  steps.push_back([](StoreUser& user) { return user.rename("plain/folder", "b/folder"); });
  steps.push_back(unlink("plain/link"));
  steps.push_back(checkpoint());
}

// A store after a kill, whose whole journal is to be replayed.
void plan_opening(std::mt19937_64& random, Steps& before, Steps& steps) {
  add(before, image("plain/image", random_bytes(random, 20 * kBlock)));
  add(before, image("a/image", random_bytes(random, 3 * kBlock)));
  before.push_back(checkpoint());
  before.push_back(write("a/image", kBlock, random_bytes(random, 2 * kBlock)));
  add(before, image("plain/deleted", random_bytes(random, kBlock)));
  add(before, copy("plain/image", "b/replica"));
  before.push_back(unlink("plain/deleted"));
  before.push_back(rotate("a", "key-b"));
  before.push_back(change_key("key-b", KeyChange::Kind::rotate));
  steps.push_back(settle());
}

}  // namespace

Steps folders() {
  Steps steps;
  for (const char* key : {"key-a", "key-b"}) steps.push_back([=](StoreUser& user) { return user.create_key(key); });
  for (const char* name : {"plain", "a", "b"}) {
    steps.push_back([=](StoreUser& user) { return user.make_directory(name); });
    if (name[1] == '\0') steps.push_back([=](StoreUser& user) { return user.set(name, "user.rekeyfs.key", std::string("key-") + name); });
  }
  return steps;
}

const std::vector<Workload> kWorkloads = {
    {"import", plan_import},
    {"write", plan_write},
    {"sync", plan_sync},
    {"replicate", plan_replicate},
    {"fill_and_detach", plan_fill},
    {"rotate_directory", plan_rotate_directory},
    {"rotate_key", plan_rotate_key},
    {"delete", plan_delete},
    {"keys", plan_keys},
    {"names", plan_names},
    {"opening", plan_opening, true},
};

}  // namespace rekeyfs::test
