// Recovery and check of a store whose journal has arbitrary but correctly encrypted content: operations, the records in
// them, changes of layers, and inconsistent records.
#include "engine/store/recovery.h"

#include <map>
#include <optional>

#include "engine/check/layer_check.h"
#include "engine/check/record_check.h"
#include "tests/fuzz/small_store.h"

namespace rekeyfs {
namespace {

using catalog::Journal;
using catalog::Op;

constexpr std::size_t kMaxChanges = 20000;  // that the catalog keeps in memory; then it is opened again

class Quiet final : public CheckObserver {
 public:
  void progress(std::string_view, std::uint64_t, std::uint64_t) override {}
  void found(const CheckProblem& problem) override {
    require(!problem.what.empty() && !problem.remedy.empty(), "a problem is told in words");
  }
};

// A closed store. What an input does to it stays in memory, and is undone.
class ClosedStore {
 public:
  ClosedStore() {
    store_.close();
    open();
    records_ = scan();
  }

  // As a check looks at a store. Afterwards what it has put right is right.
  void recover(const Journal::History& history) {
    Quiet quiet;
    check::Findings findings(quiet);
    check::LayerCheck layers(*bench_, findings);
    if (!open_keys(history, findings) || !layers.mark_lost_pages() ||
        !store::replay(bench_->catalog(), bench_->layers(), history))
      return;
    {
      auto records = check::Records::load(bench_->catalog(), bench_->tree(), findings);
      if (!records) return require(records.error().code == Errc::wrong_version, "a check goes on unless it meets a later version's record");
      check::RecordCheck(*records, findings).run();
      static_cast<void>(layers.run(*records, true));
    }
    checkpoint();
    check::Findings left(quiet);
    check::Records records = must(check::Records::load(bench_->catalog(), bench_->tree(), left));
    check::RecordCheck(records, left).run();
    require(left.report.problems.empty(),
            "a repair leaves nothing to repair: " + (left.report.problems.empty() ? "" : left.report.problems[0].what));
  }

  void undo() {
    if (bench_->catalog().changes() > kMaxChanges) return open();
    const std::map<std::string, std::string> now = scan();
    for (const auto& [key, value] : now)
      if (!records_.contains(key)) put(key, std::nullopt);
    for (const auto& [key, value] : records_)
      if (const auto found = now.find(key); found == now.end() || found->second != value) put(key, value);
  }

 private:
  void open() {
    bench_.reset();
    bench_ = must(check::Bench::open(store_.path(), SmallStore::credential()));
    must(bench_->open_catalog());
  }
  bool open_keys(const Journal::History& history, check::Findings& findings) {
    for (const Journal::Record& record : history.records) {
      const auto ops = catalog::decode_ops(record.payload);
      if (!ops) return false;
      for (const Op& op : *ops)
        if (!op.key.empty() && op.key[0] == static_cast<char>(catalog::Table::master_key))
          bench_->catalog().recover_op(op);
    }
    return bench_->open_keys(findings).has_value();
  }
  // Of the tables only, and only in memory; and somebody reads.
  void checkpoint() {
    for (const auto& [id, layer] : bench_->layers().take_changed()) {
      std::array<std::byte, 3 * blocks::kBlockSize> content;
      static_cast<void>(layer->read(0, content));
      static_cast<void>(layer->flush().begin());
      layer->flush().end(false, 0);
    }
  }
  std::map<std::string, std::string> scan() {
    std::map<std::string, std::string> records;
    must(bench_->catalog().scan("", "", [&](std::string_view key, std::string_view value) {
      records.emplace(key, value);
      return true;
    }));
    return records;
  }
  void put(const std::string& key, const std::optional<std::string>& value) {
    Op op;
    op.kind = value ? Op::Kind::put : Op::Kind::erase;
    op.key = key;
    op.value = value.value_or("");
    bench_->catalog().recover_op(op);
  }

  SmallStore store_;
  std::unique_ptr<check::Bench> bench_;
  std::map<std::string, std::string> records_;
};

// Payloads of journal records, one after the other, each a string.
void try_input(ByteView input) {
  static ClosedStore store;
  Journal::History history;
  Reader in(input);
  while (in.left() > 0) {
    std::string payload = in.get_string();
    if (!in.ok()) break;
    history.records.push_back({{1, 52 + 100 * history.records.size()}, std::move(payload)});
  }
  history.next_segment = 2;
  store.recover(history);
  store.undo();
}

}  // namespace
}  // namespace rekeyfs

RK_FUZZ_TARGET(rekeyfs::try_input)
