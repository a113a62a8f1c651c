#include "tools/progress_bar.h"

#include <algorithm>
#include <cerrno>

#include <sys/ioctl.h>
#include <unistd.h>

#include "tools/columns.h"
#include "tools/human.h"

namespace rekeyfs::tools {
namespace {

constexpr std::size_t kShortestBar = 10, kLongestBar = 40;

winsize size_of_terminal(int terminal) {
  winsize size{};
  if (ioctl(terminal, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) size.ws_col = 80;
  if (size.ws_row == 0) size.ws_row = 24;
  return size;
}

// "[#####.....]"
std::string bar(double percent, std::size_t width) {
  auto filled = static_cast<std::size_t>(std::clamp(percent, 0.0, 100.0) / 100 * static_cast<double>(width));
  return "[" + std::string(filled, '#') + std::string(width - filled, '.') + "]";
}

// " 42.3 %     1.2 GiB of 2.9 GiB  512.0 MiB/s  0:03 left". Numbers that grow have a fixed width, so that bars do not
// move.
std::string figures(const Progress& progress) {
  constexpr std::size_t kPercentColumns = 7, kBytesColumns = 10;
  std::string text = pad_left(percent_text(progress.percent), kPercentColumns) + "  " +
                     pad_left(bytes_text(progress.bytes_done), kBytesColumns) + " of " +
                     bytes_text(progress.bytes_total);
  if (progress.failed()) return text + "  error: " + printable(progress.error);
  if (progress.bytes_per_second > 0) text += "  " + rate_text(progress.bytes_per_second);
  if (progress.seconds_left) text += "  " + duration_text(*progress.seconds_left) + " left";
  return text;
}

}  // namespace

Progress progress_of(const nlohmann::json& replication) {
  Progress progress;
  progress.path = replication.value("path", "");
  progress.state = replication.value("state", "");
  progress.error = replication.value("error", "");
  progress.percent = replication.value("percent", 0.0);
  progress.bytes_done = replication.value("bytes_done", std::uint64_t{0});
  progress.bytes_total = replication.value("bytes_total", std::uint64_t{0});
  progress.bytes_per_second = replication.value("bytes_per_second", 0.0);
  if (auto left = replication.find("seconds_left"); left != replication.end() && left->is_number())
    progress.seconds_left = left->get<double>();
  return progress;
}

std::vector<Progress> progress_list_of(const nlohmann::json& answer) {
  std::vector<Progress> list;
  for (const nlohmann::json& replication : answer.at("replications")) list.push_back(progress_of(replication));
  return list;
}

// Priority when space is short: figures, name, bar. A replication in error has no bar; its reason takes the space.
std::string bar_line(const Progress& progress, std::size_t columns) {
  std::string right = figures(progress);
  std::string name = printable(progress.path);
  if (progress.failed()) return cut(fit(name, columns / 3) + "  " + right, columns);
  std::size_t taken = columns_of(right) + 2;
  if (taken >= columns) return cut(right, columns);
  std::size_t room = columns - taken;
  constexpr std::size_t kFrame = 4;  // two blanks, two brackets
  std::size_t name_columns =
      std::min(columns_of(name), room > kShortestBar + kFrame ? room - kShortestBar - kFrame : room);
  std::string line = fit(name, name_columns);
  if (room >= name_columns + kFrame + kShortestBar)
    line += "  " + bar(progress.percent, std::min(room - name_columns - kFrame, kLongestBar));
  return line + "  " + right;
}

std::string plain_line(const Progress& progress) {
  return printable(progress.path) + "  " + figures(progress);
}

std::size_t BarScreen::columns() const {
  return size_of_terminal(terminal_).ws_col;
}
std::size_t BarScreen::rows() const {
  return size_of_terminal(terminal_).ws_row;
}

void BarScreen::show(const std::vector<std::string>& finished, const std::vector<std::string>& lines) {
  std::string out;
  if (shown_ > 0) out += "\r\x1b[" + std::to_string(shown_) + "A";
  for (const std::string& line : finished) out += "\x1b[2K" + line + "\n";
  for (const std::string& line : lines) out += "\x1b[2K" + line + "\n";
  out += "\x1b[J";
  shown_ = lines.size();
  write_all(out);
}

void BarScreen::tidy() {
  write_all("\r\x1b[J");
}

void BarScreen::write_all(const std::string& text) const {
  for (std::size_t at = 0; at < text.size();) {
    ssize_t wrote = write(terminal_, text.data() + at, text.size() - at);
    if (wrote < 0 && errno != EINTR) return;  // the terminal is gone
    if (wrote > 0) at += static_cast<std::size_t>(wrote);
  }
}

}  // namespace rekeyfs::tools
