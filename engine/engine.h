// Engine: one open store. With engine/contract/ and engine/types/ the whole of what fs/ and tools/ see of the engine.
//
// It gives out four services and knows neither FUSE nor a terminal. Permission bits are NOT checked here: the kernel
// does (mount option default_permissions), and commands act as root or as the owner of the store. The rules of the image
// store (design section 4) are checked. All members are thread-safe unless they say otherwise; nothing throws.
#pragma once

#include <memory>
#include <string>

#include "engine/base/credential.h"
#include "engine/base/result.h"
#include "engine/contract/files.h"
#include "engine/contract/keys.h"
#include "engine/contract/names.h"
#include "engine/contract/reports.h"
#include "engine/types/check_report.h"
#include "engine/types/observer.h"
#include "engine/types/open_options.h"

namespace rekeyfs {

class Engine {
 public:
  // `store` is a directory: missing or empty. Errc::exists if it is a store, Errc::not_empty if it is not empty.
  static Status initialize(const std::string& store, const Credential& credential);
  // The kind of secret that opens a store, found without opening it: commands ask for the right one, and refuse a
  // directory that is no store before they ask. Errc::not_found if it is no store; Errc::wrong_version; Errc::corrupt.
  static Result<Credential::Kind> unlocked_by(const std::string& store);
  // Locks, unlocks, verifies, recovers and starts the background work. Not before fork() of a daemon: threads
  // start here. Errc::locked names the process that holds the store.
  static Result<std::unique_ptr<Engine>> open(const std::string& store, const Credential& credential,
                                              const OpenOptions& options = {});
  // Verifies a store that nobody has open; changes it only if it is to be repaired. Forks, as open() does.
  static Result<CheckReport> check(const std::string& store, const Credential& credential, const CheckOptions& options,
                                   CheckObserver& observer);
  virtual ~Engine() = default;

  virtual Names& names() = 0;
  virtual Files& files() = 0;
  virtual Keys& keys() = 0;
  virtual Reports& reports() = 0;

  virtual void set_observer(Observer* observer) = 0;  // before any traffic; may be null
  virtual const std::string& store_path() const = 0;
  // Every change that any call has acknowledged is durable when it returns; a full disk does not keep it from that.
  virtual Status sync_all() = 0;
  // Stops the background work, makes everything durable and frees the store. No other call may run or follow;
  // every OpenFile has been released.
  virtual Status close() = 0;
};

}  // namespace rekeyfs
