// Journal: systemd's journal, as a place for the events of an open store's audit log, with a field for each fact.
//
// Speaks the journal's native protocol: a datagram per event to a local socket, so the program needs no library and the
// daemon, which may open no network socket, no exception. A journal that is slow or full never holds up the daemon: the
// datagram is not sent, and the next one says how many were not. A thread of its own reads the events; what it sends has
// been committed.
#pragma once

#include <cstdint>
#include <string>

#include "engine/base/background.h"
#include "engine/base/descriptor.h"
#include "engine/engine.h"

namespace rekeyfs::tools {

class Journal {
 public:
  explicit Journal(Engine& engine) : engine_(engine) {}  // `engine` must outlive it, and be open until stop()

  // Sends what has happened since the store was opened, and what happens. No-op on a system without systemd.
  void start();
  void stop();  // sends the last events

 private:
  Background::Duration step();
  bool send_some();  // whether there may be more
  void send(const std::string& datagram);

  Engine& engine_;
  Descriptor socket_;
  std::uint64_t last_ = 0;      // number of the last event sent
  std::uint64_t not_sent_ = 0;  // since the last one that was
  Background background_{"journal"};
};

}  // namespace rekeyfs::tools
