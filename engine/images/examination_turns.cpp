#include "engine/images/examination_turns.h"

namespace rekeyfs::images {

void ExaminationTurns::add(const Item& item, std::uint64_t bytes_left) {
  remove(item->ino);
  ready_[item->user].emplace(bytes_left, item->ino);
  all_.insert_or_assign(item->ino, Entry{item, bytes_left});
}

void ExaminationTurns::remove(Ino ino) noexcept {
  const auto found = all_.find(ino);
  if (found == all_.end()) return;
  if (const auto mine = ready_.find(found->second.item->user); mine != ready_.end()) {
    mine->second.erase({found->second.bytes_left, ino});
    if (mine->second.empty()) ready_.erase(mine);
  }
  all_.erase(found);
}

ExaminationTurns::Item ExaminationTurns::take() {
  auto turn = ready_.upper_bound(last_user_);
  for (std::size_t asked = 0; asked < ready_.size(); ++asked, ++turn) {
    if (turn == ready_.end()) turn = ready_.begin();
    if (!at_work_.insert(turn->first).second) continue;
    last_user_ = turn->first;
    const Ino ino = turn->second.begin()->second;
    turn->second.erase(turn->second.begin());
    if (turn->second.empty()) ready_.erase(turn);
    return all_.at(ino).item;
  }
  return nullptr;
}

void ExaminationTurns::give_back(const Item& taken, std::uint64_t bytes_left) {
  at_work_.erase(taken->user);
  if (find(taken->ino) == taken) add(taken, bytes_left);
}

void ExaminationTurns::end(const Item& taken) noexcept {
  at_work_.erase(taken->user);
  if (find(taken->ino) == taken) remove(taken->ino);
}

ExaminationTurns::Item ExaminationTurns::find(Ino ino) const {
  const auto found = all_.find(ino);
  return found == all_.end() ? nullptr : found->second.item;
}

}  // namespace rekeyfs::images
