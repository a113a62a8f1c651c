#include "engine/quota/quota_book.h"

#include <algorithm>

#include "engine/base/log.h"
#include "engine/quota/quota_text.h"

namespace rekeyfs::quota {

using catalog::Table;
using catalog::make_key;
using names::InodeRecord;

namespace {

using Clock = Account::Clock;

// Those of `accounts` that are not in `others`.
Accounts without(const Accounts& accounts, const Accounts& others) {
  Accounts rest;
  for (const auto& account : accounts)
    if (std::find(others.begin(), others.end(), account) == others.end()) rest.push_back(account);
  return rest;
}

std::string usage_text(const std::string& name, std::uint64_t used, std::uint64_t limit, bool is_bytes) {
  const auto text = [&](std::uint64_t number) { return is_bytes ? size_text(number) : std::to_string(number); };
  return text(used) + " of " + text(limit) + name;
}

}  // namespace

// --- which directories -----------------------------------------------------------------------------------------

Status QuotaBook::start() {
  RK_TRY(store_.catalog().scan(make_key(Table::quota), "", [&](std::string_view, std::string_view) {
    used_.store(true);
    return false;
  }));
  return background_.start([this] { return count_outdated(); });
}

void QuotaBook::stop() {
  stopped_.store(true);
  background_.stop();
}

// After a mount, so that changes seldom wait for the first walk; later where usage moved without a charge. All walks
// together take a tenth of one idle thread, so that one user's clones do not cost others with quotas.
Background::Duration QuotaBook::count_outdated() {
  constexpr int kRestPerWork = 10;
  constexpr auto kRest = std::chrono::seconds(1);
  if (!is_used()) return Background::kUntilWoken;
  const std::uint64_t now = shifts();
  if (counted_at_ == now) return kRest;
  counted_at_ = now;
  const Clock::time_point began = Clock::now();
  std::vector<Ino> directories;
  const Status found = store_.catalog().scan(make_key(Table::quota), "", [&](std::string_view key, std::string_view) {
    directories.push_back(Ino{Reader(key.substr(1)).get_be64()});
    return true;
  });
  if (!found) log::warn("cannot read the quotas: {}", describe(found.error()));
  for (const Ino directory : directories) count(directory);
  return std::max<Background::Duration>(kRest, (Clock::now() - began) * kRestPerWork);
}

void QuotaBook::count(Ino directory) {
  const auto inode = tree_.get(directory);
  if (!inode || stopped_.load()) return;
  const auto account = account_of(directory, inode->quota);
  if (!account->is_outdated(shifts())) return;
  const Status walked = walk(*account, Clock::now());
  if (!walked && !stopped_.load()) log::warn("cannot count what is below {}: {}", tree_.path_of(directory), describe(walked.error()));
}

Status QuotaBook::begin_use() {
  used_.store(true);
  background_.wake();
  return {};
}

std::shared_ptr<Account> QuotaBook::account_of(Ino directory, const names::Quota& limits) {
  std::shared_ptr<Account> account;
  {
    Lock lock(mutex_);
    std::shared_ptr<Account>& known = accounts_[directory];
    if (!known) known = std::make_shared<Account>(directory);
    account = known;
  }
  account->set_limits(limits);
  return account;
}

Result<Accounts> QuotaBook::accounts_above(Ino directory) {
  constexpr int kMaxDepth = 4096;
  Accounts accounts;
  for (int depth = 0; depth < kMaxDepth; ++depth) {
    const auto inode = tree_.get(directory);
    if (!inode && inode.error().code == Errc::stale) break;  // removed meanwhile
    if (!inode) return fail(inode.error());
    if (inode->quota.is_set()) accounts.push_back(account_of(directory, inode->quota));
    if (directory == kRootIno) break;
    directory = inode->parent;
  }
  return accounts;
}

Result<Accounts> QuotaBook::accounts_of(Ino node) {
  {
    Lock lock(mutex_);
    if (const auto found = unlinked_.find(node); found != unlinked_.end()) return found->second;
  }
  const auto inode = tree_.get(node);
  if (!inode && inode.error().code == Errc::stale) return Accounts{};
  if (!inode) return fail(inode.error());
  return accounts_above(inode->kind == NodeKind::directory ? node : inode->parent);
}

void QuotaBook::keep(Ino image, Ino parent) {
  if (!is_used()) return;
  auto accounts = accounts_above(parent);
  if (!accounts) return log::warn("a deleted image that is open does not count in quotas: {}", describe(accounts.error()));
  if (accounts->empty()) return;
  Lock lock(mutex_);
  unlinked_[image] = std::move(*accounts);
}

void QuotaBook::forget(Ino image) {
  if (!is_used()) return;
  Lock lock(mutex_);
  unlinked_.erase(image);
}

// --- charging --------------------------------------------------------------------------------------------------

Result<Charge> QuotaBook::charge_below(Ino directory, const Usage& more) {
  if (!is_used()) return Charge();
  RK_TRY_ASSIGN(const Accounts accounts, accounts_above(directory));
  return charge(accounts, more);
}

Result<Charge> QuotaBook::charge_image(Membership& membership, Ino image, const Usage& more) {
  if (!is_used()) return Charge();
  RK_TRY_ASSIGN(const Accounts accounts, accounts_of(membership, image));
  return charge(accounts, more);
}

Result<Accounts> QuotaBook::accounts_of(Membership& membership, Ino image) {
  const std::uint64_t now = generation();
  {
    Lock lock(membership.mutex_);
    if (membership.generation_ == now) return membership.accounts_;
  }
  RK_TRY_ASSIGN(Accounts accounts, accounts_of(image));
  Lock lock(membership.mutex_);
  membership.accounts_ = accounts;
  membership.generation_ = now;
  return accounts;
}

Result<Charge> QuotaBook::charge_attribute(Ino node, std::uint64_t bytes) {
  if (!is_used()) return Charge();
  RK_TRY_ASSIGN(const Accounts accounts, accounts_of(node));
  return charge(accounts, {bytes, 0});
}

Result<Charge> QuotaBook::charge_link(Ino node, Ino to) {
  if (!is_used()) return Charge();
  RK_TRY_ASSIGN(const Accounts accounts, accounts_above(to));
  RK_TRY_ASSIGN(const Accounts present, accounts_of(node));
  const Accounts entered = without(accounts, present);
  Charge charge;
  if (!entered.empty()) {
    RK_TRY_ASSIGN(const std::uint64_t bytes, bytes_of(node));
    RK_TRY(add(entered, {bytes, 1}, charge));
  }
  RK_TRY(add(without(accounts, entered), {0, 1}, charge));  // only the name is new there
  return charge;
}

Result<Charge> QuotaBook::charge_move(Ino node, Ino from, Ino to) {
  if (!is_used() || from == to) return Charge();
  RK_TRY_ASSIGN(const Accounts left, accounts_above(from));
  RK_TRY_ASSIGN(const Accounts reached, accounts_above(to));
  const Accounts entered = without(reached, left);
  if (entered.empty()) return Charge();
  UsageWalk moved = new_walk();
  RK_TRY(moved.add(node));
  return charge(entered, moved.found());
}

Status QuotaBook::check_below(Ino directory, const Usage& more) {
  RK_TRY_ASSIGN(Charge charged, charge_below(directory, more));
  charged.withdraw();
  return {};
}

Result<std::uint64_t> QuotaBook::bytes_of(Ino image) const {
  UsageWalk content = new_walk();
  RK_TRY(content.add_file(image));
  return content.found().bytes;
}

Status QuotaBook::add(const Accounts& accounts, const Usage& more, Charge& charge) {
  for (const auto& account : accounts) {
    charge.parts_.reserve(charge.parts_.size() + 1);
    if (const Status taken = take(*account, more); !taken) {
      charge.withdraw();
      return taken;
    }
    charge.parts_.push_back({account, more});
  }
  return {};
}

Result<Charge> QuotaBook::charge(const Accounts& accounts, const Usage& more) {
  Charge charge;
  RK_TRY(add(accounts, more, charge));
  return charge;
}

// Refuses from the last walk only if what was added since does not matter, and another walk would come too soon.
Status QuotaBook::take(Account& account, const Usage& more) {
  constexpr auto kSecond = std::chrono::seconds(1);
  const Clock::time_point asked = Clock::now();
  if (!account.is_known()) RK_TRY(walk(account, asked));
  if (account.take(more)) return {};
  if (account.is_known_full(more) && !account.has_rested(kSecond)) return fail(refusal(account));
  RK_TRY(walk(account, asked));
  return account.take(more) ? Status{} : fail(refusal(account));
}

// Does nothing if a walk has begun since then.
Status QuotaBook::walk(Account& account, Clock::time_point since) {
  Lock walking(account.walking);
  if (account.was_walked_since(since)) return {};
  const Account::Walk begun = account.begin(shifts());
  UsageWalk usage = new_walk();
  RK_TRY(usage.add_below(account.directory));
  std::vector<Ino> unlinked;
  {
    Lock lock(mutex_);
    for (const auto& [image, accounts] : unlinked_)
      if (std::any_of(accounts.begin(), accounts.end(), [&](const auto& one) { return one.get() == &account; })) unlinked.push_back(image);
  }
  for (const Ino image : unlinked) RK_TRY(usage.add_file(image));
  account.counted(begun, usage.found());
  return {};
}

Error QuotaBook::refusal(const Account& account) const {
  const names::Quota limits = account.limits();
  const Usage used = account.used();
  std::string standing;
  if (limits.bytes > 0) standing = usage_text("", used.bytes, limits.bytes, true);
  if (limits.images > 0) standing += (standing.empty() ? "" : " and ") + usage_text(" images", used.images, limits.images, false);
  return {Errc::over_quota, "Disk quota exceeded: " + standing + " are in use below " + tree_.path_of(account.directory) +
                                ": delete images, or ask an operator of the store for a larger user.rekeyfs.quota"};
}

// --- reports ---------------------------------------------------------------------------------------------------

Status QuotaBook::bring_up_to_date(Account& account) {
  return account.has_rested(Clock::duration::max()) ? walk(account, Clock::now()) : Status{};
}

Result<std::optional<QuotaBook::Standing>> QuotaBook::standing_of(Ino directory) {
  RK_TRY_ASSIGN(const InodeRecord inode, tree_.get(directory));
  if (!inode.quota.is_set()) return std::optional<Standing>{};
  const auto account = account_of(directory, inode.quota);
  RK_TRY(bring_up_to_date(*account));
  return std::optional(Standing{inode.quota, account->used()});
}

Result<QuotaBook::Room> QuotaBook::room_at(Ino node) {
  Room room;
  if (!is_used()) return room;
  const auto tighten = [](std::optional<Room::Kind>& kind, std::uint64_t limit, std::uint64_t used) {
    if (limit == 0) return;
    const std::uint64_t left = limit - std::min(limit, used);
    if (!kind || left < kind->left) kind = Room::Kind{limit, left};
  };
  RK_TRY_ASSIGN(const Accounts accounts, accounts_of(node));
  for (const auto& account : accounts) {
    RK_TRY(bring_up_to_date(*account));
    const names::Quota limits = account->limits();
    const Usage used = account->used();
    tighten(room.bytes, limits.bytes, used.bytes);
    tighten(room.images, limits.images, used.images);
  }
  return room;
}

}  // namespace rekeyfs::quota
