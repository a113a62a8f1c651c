// ProgressBar: shows replications as bars on a terminal or as plain lines in a pipe.
//
// Formatting a line is a pure function; BarScreen redraws a block of lines in place. Single-threaded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace rekeyfs::tools {

// The displayed values of one replication, taken from the facts of fs/control.h.
struct Progress {
  std::string path;
  std::string state;  // "replicating", "error"
  std::string error;
  double percent = 0;
  std::uint64_t bytes_done = 0, bytes_total = 0;
  double bytes_per_second = 0;
  std::optional<double> seconds_left;

  bool failed() const { return state == "error"; }
};
Progress progress_of(const nlohmann::json& replication);
std::vector<Progress> progress_list_of(const nlohmann::json& answer);

// Formats one line of at most `columns`, without line feed.
std::string bar_line(const Progress& progress, std::size_t columns);
std::string plain_line(const Progress& progress);

// The last lines on a terminal. The cursor stays below them, at the start of a line, so that the screen is usable
// however the program ends.
class BarScreen {
 public:
  explicit BarScreen(int terminal) : terminal_(terminal) {}
  std::size_t columns() const;
  std::size_t rows() const;
  // Replaces the previous lines by `lines`; `finished` lines stay above them permanently.
  void show(const std::vector<std::string>& finished, const std::vector<std::string>& lines);
  // Removes the echo of a key (^C) below the bars.
  void tidy();

 private:
  void write_all(const std::string& text) const;

  const int terminal_;
  std::size_t shown_ = 0;  // number of lines above the cursor that the next show() replaces
};

}  // namespace rekeyfs::tools
