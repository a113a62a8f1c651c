// Truncations: the handles that opened an image with O_TRUNC and have not made that final.
//
// While there is one, the image reads as empty but keeps its content: a copy that is refused restores it. The first change
// through any handle, or the FLUSH of one of these handles, replaces the content for all of them; a refused or closed
// handle only takes back its own wish. Guarded by Image::mutex.
#pragma once

#include <cstdint>
#include <utility>

namespace rekeyfs::images {

class Truncations {
 public:
  // A handle's wish. Default: none.
  class Ticket {
   public:
    explicit operator bool() const { return round_ != 0; }

   private:
    friend class Truncations;
    std::uint64_t round_ = 0;
  };

  bool pending() const { return waiting_ > 0; }
  bool holds(const Ticket& ticket) const { return ticket.round_ == round_ && waiting_ > 0; }
  Ticket add() {
    ++waiting_;
    Ticket ticket;
    ticket.round_ = round_;
    return ticket;
  }
  // False if the wish had been granted, or there was none.
  bool withdraw(Ticket& ticket) {
    const bool held = holds(ticket);
    ticket = {};
    if (held) --waiting_;
    return held;
  }
  // The content was replaced.
  void grant_all() {
    waiting_ = 0;
    ++round_;
  }

 private:
  std::size_t waiting_ = 0;
  std::uint64_t round_ = 1;  // one more with each replacement
};

}  // namespace rekeyfs::images
