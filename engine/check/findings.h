// Findings: the problems that a check has found so far. Single-threaded.
#pragma once

#include <utility>

#include "engine/types/check_report.h"


namespace rekeyfs::check {

class Findings {
 public:
  explicit Findings(CheckObserver& observer) : observer_(observer) {}

  void add(CheckProblem problem) {
    observer_.found(problem);
    report.problems.push_back(std::move(problem));
  }
  // For problems in records; a repair does what `remedy` says.
  void add_record(std::string path, std::string what, std::string remedy) {
    CheckProblem problem;
    problem.path = std::move(path);
    problem.what = std::move(what);
    problem.remedy = std::move(remedy);
    problem.repairable = true;
    add(std::move(problem));
  }
  void progress(std::string_view stage, std::uint64_t done, std::uint64_t total) { observer_.progress(stage, done, total); }

  CheckReport report;

 private:
  CheckObserver& observer_;
};

}  // namespace rekeyfs::check
