#include "engine/store/recovery.h"

#include <map>

#include "engine/base/log.h"

namespace rekeyfs::store {
namespace {

using catalog::Op;

struct Marks {
  // The layer's last sync covered all records before this position.
  std::map<LayerId, catalog::Journal::Position> synced;
  std::size_t last = 0;                   // number of records that existed when some sync began
};

// Errors that mean damage or loss. All others are transient.
bool is_damage(const Error& error) { return error.code == Errc::corrupt || error.code == Errc::not_found; }
bool is_damage_or_unreadable(const Error& error) { return is_damage(error) || error.code == Errc::io; }

Error refused(const Error& error) {
  return {error.code, "the store cannot be recovered: " + describe(error) +
                          "; nothing was changed: mount it again once the cause is gone, or, if the disk has lost it, run "
                          "'rekeyfs check --repair', which goes on without it"};
}

Result<bool> all_blocks_open(blocks::LayerRegistry& layers, const std::vector<Op>& ops, blocks::LayerReplay::GivesUp gives_up) {
  for (const Op& op : ops) {
    if (op.kind != Op::Kind::layer) continue;
    const auto change = blocks::LayerChange::decode(op.value);
    const auto layer = layers.get(op.layer);
    // A layer that cannot be opened is damaged; a power cut does not cause that. replay_layer() reports it.
    if (!change || !layer) continue;
    const Result<bool> verified = (*layer)->replay().verifies(*change);
    if (!verified && !gives_up(verified.error())) return verified;
    if (!verified.value_or(false)) return false;
  }
  return true;
}

Result<bool> replay_layer(blocks::LayerRegistry& layers, const Op& op, catalog::SegmentNumber segment, bool verify,
                          blocks::LayerReplay::GivesUp gives_up) {
  RK_TRY_ASSIGN(const blocks::LayerChange change, blocks::LayerChange::decode(op.value));
  RK_TRY_ASSIGN(const std::shared_ptr<blocks::Layer> layer, layers.get(op.layer));
  return layer->replay().replay(change, segment, verify, gives_up);
}

}  // namespace

Status replay_keys(catalog::Catalog& catalog, const catalog::Journal::History& history) {
  for (const catalog::Journal::Record& record : history.records) {
    RK_TRY_ASSIGN(const std::vector<Op> ops, catalog::decode_ops(record.payload));
    for (const Op& op : ops)
      if (!op.key.empty() && op.key[0] == static_cast<char>(catalog::Table::master_key)) catalog.recover_op(op);
  }
  return {};
}

Status replay(catalog::Catalog& catalog, blocks::LayerRegistry& layers, const catalog::Journal::History& history,
              Unreadable unreadable) {
  const blocks::LayerReplay::GivesUp gives_up = unreadable == Unreadable::is_missing ? is_damage_or_unreadable : is_damage;
  std::vector<std::vector<Op>> steps;
  Marks marks;
  for (const catalog::Journal::Record& record : history.records) {
    RK_TRY_ASSIGN(std::vector<Op> ops, catalog::decode_ops(record.payload));
    for (const Op& op : ops) {
      if (op.kind != Op::Kind::synced) continue;
      marks.synced[op.layer] = std::max(marks.synced[op.layer], op.covered);
      // A record appended during the sync became durable with it, but not the data that it depends on.
      while (marks.last < steps.size() && history.records[marks.last].at < op.covered) ++marks.last;
    }
    steps.push_back(std::move(ops));
  }

  bool whole = true;  // no block has been skipped
  for (std::size_t i = 0; i < steps.size(); ++i) {
    bool is_whole = whole;
    if (i >= marks.last && whole) {
      const Result<bool> opens = all_blocks_open(layers, steps[i], gives_up);
      if (!opens) return fail(refused(opens.error()));
      is_whole = *opens;
    }
    if (i >= marks.last && !is_whole) {
      log::info("recovery: replayed {} of {} journal records; the others were never synced and are incomplete", i, steps.size());
      return {};
    }
    for (const Op& op : steps[i]) {
      if (op.kind == Op::Kind::put || op.kind == Op::Kind::erase) {
        catalog.recover_op(op);
      } else if (op.kind == Op::Kind::layer) {
        // Copy on read may have stored a block while the image was being deleted. Such a change follows the record that
        // erased its layer and is ignored.
        RK_TRY_ASSIGN(const auto record, catalog.get(catalog::make_key(catalog::Table::layer, op.layer.value())));
        if (!record) continue;
        const auto synced = marks.synced.find(op.layer);
        const bool verify = i < marks.last && (synced == marks.synced.end() || history.records[i].at >= synced->second);
        const Result<bool> done = replay_layer(layers, op, history.records[i].at.segment, verify, gives_up);
        if (!done && !gives_up(done.error())) return fail(refused(done.error()));
        whole = whole && done.value_or(true);
        // One damaged image must not prevent opening the others.
        if (!done) log::error("recovery: layer {}: {}", op.layer.value(), describe(done.error()));
      }
    }
  }
  if (!steps.empty()) log::info("recovery: replayed {} journal records", steps.size());
  return {};
}

}  // namespace rekeyfs::store
