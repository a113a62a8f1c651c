// The composition root: assembles the parts of an open store.
#include "engine/make_engine.h"

#include <unistd.h>

#include "engine/audit/audit_log.h"
#include "engine/boot/boot_profiles.h"
#include "engine/check/check.h"
#include "engine/images/rekeyfs_xattrs.h"
#include "engine/images/content_touch.h"
#include "engine/images/prefetcher.h"
#include "engine/images/replacements.h"
#include "engine/images/rotator.h"
#include "engine/keys/key_life.h"
#include "engine/quota/quota_book.h"
#include "engine/replication/copy_on_read.h"
#include "engine/replication/filler.h"
#include "engine/services/file_service.h"
#include "engine/services/key_service.h"
#include "engine/services/name_service.h"
#include "engine/services/report_service.h"
#include "engine/store/store.h"

namespace rekeyfs {

using names::Tree;

namespace {

class LocalEngine final : public Engine {
 public:
  LocalEngine(std::string path, std::unique_ptr<store::Store> store, Tree tree, const OpenOptions& options)
      : path_(std::move(path)),
        store_(std::move(store)),
        tree_(std::move(tree)),
        quotas_(*store_, tree_),
        audit_(store_->catalog()),
        profiles_(*store_),
        filler_(*store_, tree_, readers_, profiles_, audit_),
        prefetcher_(readers_, copy_on_read_),
        initializer_(*store_, tree_),
        content_touch_(initializer_),
        key_uses_(*store_, tree_, filler_),
        key_life_(*store_, tree_, key_uses_, filler_, audit_, observer_, options.user_keys),
        refusals_(*store_, audit_),
        open_images_(*store_, tree_, filler_, initializer_, quotas_),
        status_(*store_, tree_, open_images_, filler_, initializer_),
        boots_(*store_, profiles_, prefetcher_),
        content_(swaps(), copy_on_read_, readers_, quotas_, observer_),
        fast_create_(swaps(), open_images_, refusals_, observer_),
        copies_(swaps(), content_, status_, refusals_, quotas_, observer_),
        planner_(*store_, tree_, status_, copies_, quotas_, audit_),
        rotator_(swaps(), open_images_, observer_),
        replacements_(swaps(), open_images_, refusals_, observer_),
        xattrs_(*store_, tree_, status_, filler_, quotas_, audit_),
        files_({*store_, tree_, swaps(), open_images_, content_, copies_, fast_create_, boots_, initializer_, refusals_, quotas_, status_,
                planner_, profiles_, observer_}),
        names_(*store_, tree_, status_, xattrs_, replacements_, refusals_, quotas_, files_),
        keys_(*store_, key_life_, key_uses_, rotator_, refusals_),
        reports_(*store_, tree_, filler_, audit_, key_uses_, xattrs_, quotas_, names_) {
    store_->layers().set_inodes(&content_touch_);
    tree_.set_reaper(&open_images_);
    // A replica without a digest, because its source had none or it was written to, is examined now.
    filler_.set_completed([this](Ino ino) { initializer_.completed(ino); });
    initializer_.set_is_running([this](Ino ino) { return boots_.is_running(ino); });
    initializer_.set_disk_wanted([this](Ino ino) { return fast_create_.become_disk(ino); });
  }
  ~LocalEngine() override { stop_all(); }

  Status start(const OpenOptions& options) {
    RK_TRY(audit_.load(store_->root(), store_->id()));
    RK_TRY(refusals_.start());
    RK_TRY(quotas_.start());
    if (options.read_only) return filler_.resume();  // status shows the replications, but they do not run
    RK_TRY(audit_.take_over());
    RK_TRY(open_images_.reap_orphans());
    RK_TRY(filler_.resume());
    RK_TRY(store_->checkpointer().start());
    RK_TRY(copy_on_read_.start());
    RK_TRY(key_life_.start());
    RK_TRY(filler_.start(options.filler_workers));
    RK_TRY(initializer_.start());
    RK_TRY(prefetcher_.start());
    return rotator_.start();
  }

  void stop() override { stop_all(); }
  Status close() override {
    stop_all();
    return store_->close();
  }
  void set_observer(Observer* observer) override { observer_.set(observer); }
  const std::string& store_path() const override { return path_; }
  Status sync_all() override { return store_->checkpointer().sync_all(); }

  Names& names() override { return names_; }
  Files& files() override { return files_; }
  Keys& keys() override { return keys_; }
  Reports& reports() override { return reports_; }

 private:
  void stop_all() {
    quotas_.stop();
    rotator_.stop();
    key_life_.stop();
    initializer_.stop();
    refusals_.stop();
    filler_.stop();
    prefetcher_.stop();
    copy_on_read_.stop();
    store_->checkpointer().stop();
  }

  images::LayerSwap::Parts swaps() { return {*store_, tree_, filler_, profiles_, audit_}; }

  const std::string path_;
  ObserverRelay observer_;
  std::unique_ptr<store::Store> store_;
  Tree tree_;
  quota::QuotaBook quotas_;
  audit::AuditLog audit_;
  const boot::BootProfiles profiles_;
  replication::Readers readers_;
  replication::Filler filler_;
  replication::CopyOnRead copy_on_read_;
  images::Prefetcher prefetcher_;
  images::Initializer initializer_;
  images::ContentTouch content_touch_;
  keys::KeyUses key_uses_;
  keys::KeyLife key_life_;
  images::Refusals refusals_;
  images::OpenImages open_images_;
  images::ImageStatus status_;
  images::Boots boots_;
  images::Content content_;
  images::FastCreate fast_create_;
  images::Copies copies_;
  images::CopyPlanner planner_;
  images::Rotator rotator_;
  images::Replacements replacements_;
  images::RekeyfsXattrs xattrs_;
  services::FileService files_;
  services::NameService names_;
  services::KeyService keys_;
  services::ReportService reports_;
};

}  // namespace

Status Engine::initialize(const std::string& store, const Credential& credential) {
  crypto::keep_openssl_in_secret_memory();
  return store::Store::create(store, credential, Tree::initial_records(Caller{geteuid(), getegid()}));
}

Result<CheckReport> Engine::check(const std::string& store, const Credential& credential, const CheckOptions& options,
                                  CheckObserver& observer) {
  crypto::keep_openssl_in_secret_memory();
  return check::check_store(store, credential, options, observer);
}

Result<Credential::Kind> Engine::unlocked_by(const std::string& store) {
  crypto::keep_openssl_in_secret_memory();  // before the superblock's checksum, which is the first use of OpenSSL
  RK_TRY_ASSIGN(const std::unique_ptr<io::LocalStorage> storage, io::LocalStorage::open(store));
  RK_TRY_ASSIGN(const store::Superblock superblock, store::read_superblock(*storage));
  return superblock.kind;
}

Result<std::unique_ptr<Engine>> Engine::open(const std::string& path, const Credential& credential, const OpenOptions& options) {
  crypto::keep_openssl_in_secret_memory();
  RK_TRY_ASSIGN(std::unique_ptr<store::Store> store, store::Store::open(path, credential, options.read_only));
  return make_engine(path, std::move(store), options);
}

Result<std::unique_ptr<Engine>> make_engine(const std::string& path, std::unique_ptr<store::Store> store, const OpenOptions& options) {
  RK_TRY_ASSIGN(Tree tree, Tree::create(store->catalog(), store->root(), store->id()));
  auto engine = std::make_unique<LocalEngine>(path, std::move(store), std::move(tree), options);
  RK_TRY(engine->start(options));
  return engine;
}

}  // namespace rekeyfs
