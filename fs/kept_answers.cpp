#include "fs/kept_answers.h"

#include <utility>

namespace rekeyfs::fs {

KeptAnswer::~KeptAnswer() {
  if (kept_by_ != nullptr) kept_by_->drop(*this);
}

void KeptAnswers::keep(KeptAnswer& place, uid_t user, std::string text) {
  Answers fresh;
  fresh.push_back({&place, user, std::move(text)});  // allocates memory, like the next lines, so it comes first
  Lock lock(mutex_);
  std::size_t& bytes = bytes_.try_emplace(user, 0).first->second;
  const auto [kept, is_new] = places_.try_emplace(&place, fresh.begin());
  if (!is_new) {
    const auto old = std::exchange(kept->second, fresh.begin());
    bytes_.at(old->user) -= old->text.size();
    answers_.erase(old);
  }
  place.kept_by_ = this;
  bytes += fresh.front().text.size();
  answers_.splice(answers_.end(), fresh);
  for (auto next = answers_.begin(); bytes > max_bytes_ && next != kept->second;) {
    const auto oldest = next++;
    if (oldest->user == user) erase(oldest);
  }
}

Result<KeptAnswers::Piece> KeptAnswers::piece(const KeptAnswer& place, std::uint64_t offset, std::size_t most) {
  Lock lock(mutex_);
  const auto found = places_.find(&place);
  if (found == places_.end())
    return fail(Errc::stale, "the answer is not kept any more: it was fetched, or newer answers of the same user took its place");
  const std::string& text = found->second->text;
  Piece piece{.text = {}, .total = text.size()};
  if (offset < text.size()) piece.text = text.substr(offset, most);
  if (offset + piece.text.size() >= text.size()) erase(found->second);
  return piece;
}

void KeptAnswers::drop(const KeptAnswer& place) {
  Lock lock(mutex_);
  if (const auto found = places_.find(&place); found != places_.end()) erase(found->second);
}

void KeptAnswers::erase(Answers::iterator answer) {
  bytes_.at(answer->user) -= answer->text.size();
  places_.erase(answer->place);
  answers_.erase(answer);
}

}  // namespace rekeyfs::fs
