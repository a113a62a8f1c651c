#include "engine/replication/schedule.h"

#include <algorithm>

namespace rekeyfs::replication {

void Schedule::add(LayerId job, uid_t user) {
  remove(job);
  ready_[user].insert(job);
  jobs_[job].user = user;
  chosen_.reset();
}

void Schedule::remove(LayerId job) noexcept {
  const auto found = jobs_.find(job);
  if (found == jobs_.end()) return;
  set_state(job, found->second, State::paused);
  jobs_.erase(found);
}

void Schedule::set_state(LayerId job, Entry& entry, State state) {
  if (entry.state == state) return;
  if (state == State::ready) ready_[entry.user].insert(job);  // comes first because it allocates memory
  if (state == State::resting) ends_.emplace(entry.end, job);
  if (entry.state == State::ready) {
    const auto mine = ready_.find(entry.user);
    mine->second.erase(job);
    if (mine->second.empty()) ready_.erase(mine);
  }
  const bool for_space = entry.failure.cause == Failure::Cause::space;
  if (entry.state == State::resting) ends_.erase({entry.end, job});
  if (entry.state == State::resting && for_space) --wait_for_space_;
  if (state == State::resting && for_space) ++wait_for_space_;
  entry.state = state;
  chosen_.reset();
}

void Schedule::pause(LayerId job) {
  if (const auto found = jobs_.find(job); found != jobs_.end()) set_state(job, found->second, State::paused);
}

void Schedule::resume(LayerId job) {
  const auto found = jobs_.find(job);
  if (found != jobs_.end() && found->second.state == State::paused) set_state(job, found->second, State::ready);
}

void Schedule::failed(LayerId job, const Failure& failure, Clock::time_point now) {
  const auto found = jobs_.find(job);
  if (found == jobs_.end()) return;
  Entry& entry = found->second;
  if (entry.state == State::resting) return;  // two workers failed at the same job
  entry.failure = failure;
  entry.rest = std::clamp(2 * entry.rest, kShortestRest, kLongestRest);
  entry.end = now + entry.rest;
  set_state(job, entry, State::resting);
}

void Schedule::succeeded(LayerId job) {
  if (const auto found = jobs_.find(job); found != jobs_.end()) found->second.rest = {};
}

template <typename Which>
void Schedule::wake(Which which) {
  for (auto next = ends_.begin(); next != ends_.end();) {
    const LayerId job = (next++)->second;
    Entry& entry = jobs_.at(job);
    if (which(entry)) set_state(job, entry, State::ready);
  }
}

void Schedule::key_enabled() {
  wake([](const Entry& entry) { return entry.failure.cause == Failure::Cause::key; });
}

void Schedule::space_is(std::uint64_t bytes_free) {
  wake([&](const Entry& entry) {
    const Failure& failure = entry.failure;
    return failure.cause == Failure::Cause::space && bytes_free > failure.bytes_free && bytes_free >= failure.bytes_needed;
  });
}

void Schedule::end_rests(Clock::time_point now) {
  while (!ends_.empty() && ends_.begin()->first <= now) {
    const LayerId job = ends_.begin()->second;
    set_state(job, jobs_.at(job), State::ready);
  }
}

std::optional<Schedule::Clock::time_point> Schedule::next_end() const {
  return ends_.empty() ? std::nullopt : std::optional(ends_.begin()->first);
}

// Users in order of their ids, each with all chosen jobs, oldest first.
std::vector<LayerId> Schedule::choose() const {
  std::vector<std::pair<std::set<LayerId>::const_iterator, std::set<LayerId>::const_iterator>> users;
  for (const auto& [user, jobs] : ready_) users.emplace_back(jobs.begin(), jobs.end());
  std::vector<LayerId> chosen;
  while (!users.empty() && chosen.size() < kMaxActive) {
    std::vector<LayerId> rank;  // the next job of each user
    for (auto& [next, end] : users) rank.push_back(*next++);
    std::sort(rank.begin(), rank.end());
    rank.resize(std::min(rank.size(), kMaxActive - chosen.size()));
    chosen.insert(chosen.end(), rank.begin(), rank.end());
    std::erase_if(users, [](const auto& user) { return user.first == user.second; });
  }
  std::sort(chosen.begin(), chosen.end(), [&](LayerId a, LayerId b) {
    return std::pair(jobs_.at(a).user, a) < std::pair(jobs_.at(b).user, b);
  });
  return chosen;
}

std::vector<LayerId> Schedule::active(Clock::time_point now) {
  end_rests(now);
  if (!chosen_) chosen_ = choose();
  std::vector<LayerId> jobs = *chosen_;
  const auto next_user = std::find_if(jobs.begin(), jobs.end(), [&](LayerId job) { return jobs_.at(job).user > last_user_; });
  std::rotate(jobs.begin(), next_user, jobs.end());
  return jobs;
}

void Schedule::served(LayerId job) {
  if (const auto found = jobs_.find(job); found != jobs_.end()) last_user_ = found->second.user;
}

}  // namespace rekeyfs::replication
