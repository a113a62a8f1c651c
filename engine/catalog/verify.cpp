#include "engine/catalog/verify.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "engine/base/child_process.h"
#include "engine/base/descriptor.h"
#include "engine/base/exceptions.h"
#include "engine/base/pipe.h"
#include "engine/base/read.h"
#include "engine/catalog/lmdb.h"
#include "engine/catalog/lmdb_pages.h"
#include "engine/catalog/record_seal.h"
#include "engine/catalog/tables.h"

namespace rekeyfs::catalog {
namespace {

constexpr std::string_view kNextStep =
    "; nothing was changed: run 'rekeyfs check' on the store, or restore its 'catalog' directory from a backup";

Status load_epochs(const LmdbReadTxn& txn, const RecordSeal& seal, Epochs& epochs) {
  Status status;
  RK_TRY(txn.scan(make_key(Table::epoch), [&](std::string_view key, std::string_view sealed) {
    if (key[0] != static_cast<char>(Table::epoch)) return false;
    auto value = seal.open_by_root(key, sealed);
    if (!value || value->size() != sizeof(Salt) || key.size() != 9) {
      status = fail(Errc::corrupt, "a mount record does not verify");
      return false;
    }
    Salt salt;
    std::memcpy(salt.data(), value->data(), salt.size());
    epochs.add(EpochId{static_cast<std::uint32_t>(Reader(key.substr(1)).get_be64())}, salt);
    return true;
  }));
  return status;
}

// Verifies the pages without LMDB; maps the file, so that memory does not grow with it.
Status verify_pages(const std::string& directory) {
  const Descriptor file(open((directory + "/data.mdb").c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat facts {};
  if (!file || fstat(file.get(), &facts) != 0) return fail(error_from_errno(errno, "open catalog/data.mdb"));
  if (!S_ISREG(facts.st_mode)) return fail(Errc::corrupt, "catalog/data.mdb is not a regular file");
  const auto size = static_cast<std::size_t>(facts.st_size);
  if (size == 0) return fail(Errc::corrupt, "catalog/data.mdb is empty");
  void* const bytes = mmap(nullptr, size, PROT_READ, MAP_SHARED, file.get(), 0);
  if (bytes == MAP_FAILED) return fail(error_from_errno(errno, "map catalog/data.mdb"));
  return LmdbPages({static_cast<const char*>(bytes), size}).verify();  // no munmap: the process ends soon
}

Result<Census> walk(const std::string& directory, const crypto::Key& root, const Uuid& store) {
  RK_TRY(verify_pages(directory));
  RK_TRY_ASSIGN(const LmdbEnvironment env, LmdbEnvironment::open(directory, LmdbEnvironment::Access::read_only));
  RK_TRY_ASSIGN(const LmdbReadTxn txn, LmdbReadTxn::begin(env));
  Epochs epochs(root);
  RK_TRY_ASSIGN(const RecordSeal seal, RecordSeal::create(root, store, epochs));
  RK_TRY(load_epochs(txn, seal, epochs));

  Census census;
  RecordSeal::MultisetDigest digest{};
  Status status;
  const std::string super_key = make_key(Table::super);
  RK_TRY(txn.scan("", [&](std::string_view key, std::string_view sealed) {
    if (!seal.open(key, sealed)) {
      status = fail(Errc::corrupt, "a record does not verify");
      return false;
    }
    // A branch with damaged keys makes a lookup miss a record that a walk finds.
    const auto found = txn.get(key);
    if (!found || !*found || (*found)->data() != sealed.data()) {
      status = found ? fail(Errc::corrupt, "a record is stored under the wrong branch") : fail(found.error());
      return false;
    }
    if (key != super_key) seal.add(digest, key, sealed);
    if (key[0] == static_cast<char>(Table::inode)) ++census.nodes;
    return true;
  }));
  RK_TRY(status);
  RK_TRY_ASSIGN(const auto sealed_super, txn.get(super_key));
  if (!sealed_super) return fail(Errc::corrupt, "the super record is missing");
  RK_TRY_ASSIGN(const std::string super_bytes, seal.open(super_key, *sealed_super));
  RK_TRY_ASSIGN(const SuperRecord super, SuperRecord::decode(super_bytes));
  if (super.digest != digest) return fail(Errc::corrupt, "a record is missing or outdated");
  return census;
}

// Runs in the child. Writes "+" and the census, or "-", the error code and a message. Returns an exit code.
int walk_and_tell(int out, const std::string& directory, const crypto::Key& root, const Uuid& store) {
  const Result<Census> census = caught([&] { return walk(directory, root, store); });
  const std::string answer = census ? "+" + std::to_string(census->nodes)
                                    : "-" + std::string(1, static_cast<char>(census.error().code)) + describe(census.error());
  return write(out, answer.data(), answer.size()) == static_cast<ssize_t>(answer.size()) ? 0 : 1;
}

}  // namespace

Result<Census> verify_catalog(const std::string& directory, const crypto::Key& root, const Uuid& store) {
  RK_TRY_ASSIGN(Pipe pipe, Pipe::create());
  RK_TRY_ASSIGN(ChildProcess child,
                ChildProcess::fork([&](int out) { return walk_and_tell(out, directory, root, store); }, pipe.write));
  pipe.write.reset();
  const std::string answer = read_to_end(pipe.read.get());
  if (!has_succeeded(child.wait()) || answer.empty())
    return fail(Errc::corrupt, "the catalog is damaged: the process that verifies it crashed" + std::string(kNextStep));
  if (answer[0] == '+') return Census{std::stoull(answer.substr(1))};
  const auto code = static_cast<Errc>(answer.at(1));
  const bool passes = code == Errc::no_memory || code == Errc::too_many_files || code == Errc::io;
  if (passes) return fail(code, "the catalog cannot be verified: " + answer.substr(2));
  return fail(Errc::corrupt, "the catalog is damaged: " + answer.substr(2) + std::string(kNextStep));
}

}  // namespace rekeyfs::catalog
