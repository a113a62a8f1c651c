#include "engine/check/check.h"

#include <algorithm>
#include <optional>

#include "engine/audit/event_chain.h"
#include "engine/check/anchor.h"
#include "engine/check/bench.h"
#include "engine/check/layer_check.h"
#include "engine/check/record_check.h"
#include "engine/check/unused_space.h"
#include "engine/store/recovery.h"

namespace rekeyfs::check {
namespace {

class StoreCheck {
 public:
  StoreCheck(Bench& bench, const CheckOptions& options, CheckObserver& observer)
      : bench_(bench), options_(options), findings_(observer), layers_(bench, findings_) {}

  Result<CheckReport> run() {
    for (const std::string& flag : store::unknown_flags(bench_.features()))
      findings_.report.unverified.push_back({std::string(store::kSuperblockName), "this rekeyfs does not know the feature " + flag});
    RK_TRY(open_catalog());
    if (findings_.report.complete) RK_TRY(look());
    if (options_.repair && findings_.report.complete) RK_TRY(repair());
    if (findings_.report.complete && (findings_.report.problems.empty() || findings_.report.repaired)) {
      RK_TRY_ASSIGN(findings_.report.anchor, anchor_of(bench_));
    }
    return std::move(findings_.report);
  }

 private:
  // Sets `complete` to whether the rest can be examined.
  Status open_catalog() {
    findings_.progress("catalog", 0, 0);
    Status opened = bench_.open_catalog();
    if (!opened && is_damage(opened.error())) opened = open_salvaged(opened.error());
    if (!opened && !is_damage(opened.error())) return opened;
    findings_.report.complete = opened.has_value();
    if (!opened) add(CheckProblem::Kind::catalog, "catalog", opened.error().message, "restore the store from a backup", false);
    return {};
  }

  Status open_salvaged(const Error& damage) {
    RK_TRY_ASSIGN(const catalog::Salvaged salvaged, bench_.salvage_catalog());
    add(CheckProblem::Kind::catalog, "catalog/data.mdb", damage.message.substr(0, damage.message.find(';')),
        "it is rebuilt from the " + std::to_string(salvaged.records.size()) + " records that verify, " +
            (salvaged.whole ? "which are all records" : "the others are lost"),
        true);
    return bench_.open_catalog();
  }

  static bool is_damage(const Error& error) {
    return error.code == Errc::corrupt || error.code == Errc::not_found || error.code == Errc::io || error.code == Errc::invalid;
  }

  Status look() {
    if (!options_.anchor.empty()) {
      RK_TRY_ASSIGN(const std::optional<std::string> older, rolled_back(bench_, options_.anchor));
      if (older) add(CheckProblem::Kind::rollback, "store", "it is older than its anchor: " + *older, "put the newest copy back", false);
    }
    if (!bench_.history().broken.empty())
      add(CheckProblem::Kind::journal, "journal", bench_.history().broken,
          "later records are lost; after a power cut they were never synced", true);
    RK_TRY(bench_.open_keys(findings_));
    RK_TRY(layers_.mark_lost_pages());
    RK_TRY(store::replay(bench_.catalog(), bench_.layers(), bench_.history(), store::Unreadable::is_missing));
    RK_TRY_ASSIGN(Records records, Records::load(bench_.catalog(), bench_.tree(), findings_));
    records_.emplace(std::move(records));
    RecordCheck(*records_, findings_).run();
    RK_TRY(check_log());
    RK_TRY(layers_.run(*records_, options_.read_data));
    RK_TRY_ASSIGN(orphan_files_, layers_.find_orphan_files(*records_));
    return {};
  }

  Status check_log() {
    RK_TRY_ASSIGN(const audit::EventChain chain, audit::EventChain::create(bench_.root(), bench_.id()));
    RK_TRY_ASSIGN(const LogVerification log, chain.verify(bench_.catalog()));
    for (const std::string& problem : log.problems)
      findings_.add_record("audit log", problem, "its other events are kept, and the chain begins anew");
    if (!log.problems.empty()) records_->restart_log(log.newest);
    return {};
  }

  Status repair() {
    const std::vector<CheckProblem>& problems = findings_.report.problems;
    // Content lost with a table page cannot be restored.
    findings_.report.repaired = std::all_of(problems.begin(), problems.end(), [](const CheckProblem& problem) {
      return problem.repairable && problem.size == 0;
    });
    const bool changes = std::any_of(problems.begin(), problems.end(), [](const CheckProblem& problem) { return problem.repairable; });
    findings_.progress("repair", 0, 0);
    if (changes || !bench_.history().records.empty()) RK_TRY(bench_.commit());
    for (const std::string& path : orphan_files_) RK_TRY(bench_.storage().remove(path));
    return give_back_unused_space(bench_, *records_, findings_);
  }

  void add(CheckProblem::Kind kind, std::string path, std::string what, std::string remedy, bool repairable) {
    CheckProblem problem;
    problem.kind = kind;
    problem.path = std::move(path);
    problem.what = std::move(what);
    problem.remedy = std::move(remedy);
    problem.repairable = repairable;
    findings_.add(std::move(problem));
  }

  Bench& bench_;
  const CheckOptions& options_;
  Findings findings_;
  LayerCheck layers_;
  std::optional<Records> records_;
  std::vector<std::string> orphan_files_;
};

}  // namespace

Result<CheckReport> check_store(const std::string& directory, const Credential& credential, const CheckOptions& options,
                                CheckObserver& observer) {
  RK_TRY_ASSIGN(const std::unique_ptr<Bench> bench, Bench::open(directory, credential));
  if (options.repair) RK_TRY(store::can_write(bench->features()));
  return StoreCheck(*bench, options, observer).run();
}

}  // namespace rekeyfs::check
