#include "engine/types/check_report.h"

namespace rekeyfs {

std::string_view name_of(CheckProblem::Kind kind) {
  switch (kind) {
    case CheckProblem::Kind::catalog: return "catalog";
    case CheckProblem::Kind::journal: return "journal";
    case CheckProblem::Kind::record: return "record";
    case CheckProblem::Kind::table: return "table";
    case CheckProblem::Kind::block: return "block";
    case CheckProblem::Kind::file: return "file";
    case CheckProblem::Kind::rollback: return "rollback";
  }
  return "unknown";
}

}  // namespace rekeyfs
