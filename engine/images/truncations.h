// Truncations: the handles that opened an image with O_TRUNC and whose truncation is not final yet.
//
// While there is one, the image reads as empty but keeps its old content, so that a refused copy can restore it. The
// first change through any handle, or the FLUSH of one of these handles, replaces the content and settles all of them.
// A handle that is refused or closed withdraws only its own truncation. The owner of the image can say through such a
// handle that the new content is plain. Guarded by Image::mutex.
#pragma once

#include <cstdint>
#include <utility>

namespace rekeyfs::images {

class Truncations {
 public:
  // The pending truncation of one handle. Default: none.
  class Ticket {
   public:
    explicit operator bool() const { return round_ != 0; }

   private:
    friend class Truncations;
    std::uint64_t round_ = 0;
    bool is_plain_ = false;
  };

  bool pending() const { return waiting_ > 0; }
  bool makes_plain() const { return plain_ > 0; }  // whether the new content is plain whatever the old one is
  bool holds(const Ticket& ticket) const { return ticket.round_ == round_ && waiting_ > 0; }
  Ticket add() {
    ++waiting_;
    Ticket ticket;
    ticket.round_ = round_;
    return ticket;
  }
  // False if the truncation has taken place already, or there was none.
  bool make_plain(Ticket& ticket) {
    const bool held = holds(ticket);
    if (held && !std::exchange(ticket.is_plain_, true)) ++plain_;
    return held;
  }
  bool withdraw(Ticket& ticket) {
    const bool held = holds(ticket);
    if (held && ticket.is_plain_) --plain_;
    if (held) --waiting_;
    ticket = {};
    return held;
  }
  // The content was replaced: settles all pending truncations.
  void grant_all() {
    waiting_ = plain_ = 0;
    ++round_;
  }

 private:
  std::size_t waiting_ = 0;
  std::size_t plain_ = 0;    // of those, how many make the image plain
  std::uint64_t round_ = 1;  // incremented by each replacement
};

}  // namespace rekeyfs::images
