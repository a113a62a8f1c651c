// Engine: one open store. With engine/contract/ and engine/types/ it is all that fs/ and tools/ use of the engine.
//
// It provides four services and knows neither FUSE nor a terminal. Permission bits are NOT checked here: the kernel
// checks them (mount option default_permissions), and commands act as root or as the owner of the store. The rules of
// the image store (design section 4) are checked. All members are thread-safe unless they say otherwise; no function
// throws.
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
  // `store`: a directory that is missing or empty. Errc::exists if it is a store, Errc::not_empty if it is not empty.
  static Status initialize(const std::string& store, const Credential& credential);
  // The kind of secret that opens a store, determined without opening it: commands then ask for the right one, and
  // refuse a directory that is not a store before asking. Errc::not_found if it is not a store; Errc::wrong_version;
  // Errc::corrupt.
  static Result<Credential::Kind> unlocked_by(const std::string& store);
  // Locks, unlocks, verifies and recovers the store and starts background work. A daemon calls this after fork(),
  // because threads start here. Errc::locked names the process that holds the store.
  static Result<std::unique_ptr<Engine>> open(const std::string& store, const Credential& credential,
                                              const OpenOptions& options = {});
  // Checks a store that is not open; changes it only with the repair option. Forks, as open() does.
  static Result<CheckReport> check(const std::string& store, const Credential& credential, const CheckOptions& options,
                                   CheckObserver& observer);
  virtual ~Engine() = default;

  virtual Names& names() = 0;
  virtual Files& files() = 0;
  virtual Keys& keys() = 0;
  virtual Reports& reports() = 0;

  virtual void set_observer(Observer* observer) = 0;  // call before any other use; may be null
  virtual const std::string& store_path() const = 0;
  // Makes every acknowledged change durable, even on a full disk.
  virtual Status sync_all() = 0;
  // Stops background work and records the refusals that have been counted. Only reports() and close() may be called
  // afterwards.
  virtual void stop() = 0;
  // Stops background work, makes everything durable and unlocks the store. No other call may run or follow, and every
  // OpenFile must have been released.
  virtual Status close() = 0;
};

}  // namespace rekeyfs
