// Command: each command of `rekeyfs` is one file in this folder that registers itself with the command line parser.
//
// The parser fills the command's options and stores what to run; it runs after the whole command line was parsed.
#pragma once

#include <functional>
#include <utility>

#include <CLI/CLI.hpp>

#include "tools/outcome.h"

namespace rekeyfs::tools {

using Run = std::function<Outcome<ExitCode>()>;

class Chosen {
 public:
  void on(CLI::App& command, Run run) {
    command.callback([this, run = std::move(run)] { run_ = run; });
  }
  bool any() const { return run_ != nullptr; }
  Outcome<ExitCode> run() const { return run_(); }

 private:
  Run run_;
};

void add_init(CLI::App& parent, Chosen& chosen);
void add_mount(CLI::App& parent, Chosen& chosen);
void add_umount(CLI::App& parent, Chosen& chosen);
void add_key(CLI::App& parent, Chosen& chosen);
void add_replicate(CLI::App& parent, Chosen& chosen);
void add_status(CLI::App& parent, Chosen& chosen);
void add_log(CLI::App& parent, Chosen& chosen);
void add_info(CLI::App& parent, Chosen& chosen);
void add_rotate(CLI::App& parent, Chosen& chosen);
void add_profile(CLI::App& parent, Chosen& chosen);
void add_check(CLI::App& parent, Chosen& chosen);

}  // namespace rekeyfs::tools
