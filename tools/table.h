// Table: rows of text in aligned columns, for a terminal or a pipe. Not thread-safe.
#pragma once

#include <string>
#include <vector>

namespace rekeyfs::tools {

class Table {
 public:
  explicit Table(std::vector<std::string> headings) { add(std::move(headings)); }
  void add(std::vector<std::string> cells);  // one cell per heading; made printable
  std::string text() const;                  // ends with a line feed

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace rekeyfs::tools
