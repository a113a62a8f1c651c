#include "tools/table.h"

#include <algorithm>

#include "tools/columns.h"
#include "tools/human.h"

namespace rekeyfs::tools {

void Table::add(std::vector<std::string> cells) {
  for (std::string& cell : cells) cell = printable(cell);
  rows_.push_back(std::move(cells));
}

std::string Table::text() const {
  std::vector<std::size_t> widths(rows_.front().size(), 0);
  for (const auto& row : rows_)
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], columns_of(row[i]));
  std::string out;
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      bool last = i + 1 == row.size();
      out += last ? row[i] + '\n' : pad(row[i], widths[i] + 2);
    }
  }
  return out;
}

}  // namespace rekeyfs::tools
