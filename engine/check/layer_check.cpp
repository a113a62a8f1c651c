#include "engine/check/layer_check.h"

#include <algorithm>

#include "engine/types/check_report.h"

namespace rekeyfs::check {

using blocks::BlockEntry;
using blocks::BlockState;
using blocks::BlockTable;
using blocks::Layer;
using catalog::Table;
using catalog::make_key;

namespace {

constexpr std::string_view kRestore = "restore the image from a copy";

std::string blocks_text(BlockIndex first, BlockIndex end) {
  if (end == first + 1) return "block " + std::to_string(first);
  return "blocks " + std::to_string(first) + " to " + std::to_string(end - 1);
}

}  // namespace

// Reports adjacent blocks with the same problem as one problem.
class LayerCheck::BlockReport {
 public:
  BlockReport(Findings& findings, const Layer& layer, std::string path) : findings_(findings), layer_(layer), path_(std::move(path)) {}
  ~BlockReport() { flush(); }
  BlockReport(const BlockReport&) = delete;
  BlockReport& operator=(const BlockReport&) = delete;

  void add(BlockIndex first, BlockIndex end, std::string_view what) {
    if (what == what_ && first == end_) {
      end_ = end;
      return;
    }
    flush();
    what_ = what;
    first_ = first;
    end_ = end;
  }

 private:
  void flush() {
    if (what_.empty()) return;
    CheckProblem problem;
    problem.kind = CheckProblem::Kind::block;
    problem.path = path_;
    problem.what = blocks_text(first_, end_) + " " + what_;
    problem.remedy = kRestore;
    problem.layer = layer_.id();
    problem.offset = first_ * layer_.block_size();
    problem.size = std::min(end_ * layer_.block_size(), layer_.size()) - problem.offset;
    findings_.add(std::move(problem));
    what_.clear();
  }

  Findings& findings_;
  const Layer& layer_;
  const std::string path_;
  std::string what_;
  BlockIndex first_ = 0, end_ = 0;
};

// --- tables ----------------------------------------------------------------------------------------------------

// A layer whose base has no record cannot be opened, although its own blocks exist.
Status LayerCheck::detach_from_missing_bases() {
  std::set<std::string> known;
  std::vector<std::pair<std::string, blocks::LayerRecord>> over_bases;
  RK_TRY(bench_.catalog().scan(make_key(Table::layer), "", [&](std::string_view key, std::string_view value) {
    known.emplace(key);
    auto record = blocks::LayerRecord::decode(value);
    if (record && record->base) over_bases.emplace_back(key, std::move(*record));
    return true;
  }));
  for (const catalog::Journal::Record& record : bench_.history().records) {
    RK_TRY_ASSIGN(const std::vector<catalog::Op> ops, catalog::decode_ops(record.payload));
    for (const catalog::Op& op : ops)
      if (op.kind == catalog::Op::Kind::put) known.insert(op.key);
  }
  for (auto& [key, record] : over_bases) {
    if (known.contains(make_key(Table::layer, record.base.value()))) continue;
    const LayerId id{Reader(std::string_view(key).substr(1)).get_be64()};
    findings_.add_record("layer " + std::to_string(id.value()), "its base, layer " + std::to_string(record.base.value()) + ", is missing",
                         "its own blocks are kept; reads of the base's blocks fail with an I/O error");
    record.take_base();
    catalog::Op op;
    op.key = key;
    op.value = record.encode();
    bench_.catalog().recover_op(op);
  }
  return {};
}

Status LayerCheck::mark_lost_pages() {
  RK_TRY(detach_from_missing_bases());
  std::vector<LayerId> ids;
  RK_TRY(bench_.catalog().scan(make_key(Table::layer), "", [&](std::string_view key, std::string_view) {
    ids.push_back(LayerId{Reader(key.substr(1)).get_be64()});
    return true;
  }));
  std::uint64_t done = 0;
  for (LayerId id : ids) {
    findings_.progress("tables", done++, ids.size());
    const auto layer = bench_.layers().get(id);
    if (!layer) continue;  // its records are inconsistent, which RecordCheck reports
    RK_TRY((*layer)->blocks().mark_lost([&](BlockIndex first, BlockIndex end) { lost_.push_back({id, first, end}); }));
  }
  return {};
}

void LayerCheck::tell_lost_pages(const Records& records) {
  for (const Span& span : lost_) {
    if (!records.layers.contains(span.layer)) continue;
    const auto layer = bench_.layers().get(span.layer);
    if (!layer) continue;
    const BlockIndex end = std::min<BlockIndex>(span.end, ((*layer)->size() + (*layer)->block_size() - 1) / (*layer)->block_size());
    CheckProblem problem;
    problem.kind = CheckProblem::Kind::table;
    problem.path = name_of_user(records, span.layer);
    problem.what = "a page of the table of layer " + std::to_string(span.layer.value()) + " is damaged or missing" +
                   (span.first < end ? ", and " + blocks_text(span.first, end) + " with it" : "");
    problem.remedy = "the page is replaced and other blocks are kept; restore the image from a copy";
    problem.repairable = true;
    problem.layer = span.layer;
    problem.offset = span.first * (*layer)->block_size();
    if (span.first < end) problem.size = std::min(end * (*layer)->block_size(), (*layer)->size()) - problem.offset;
    findings_.add(std::move(problem));
  }
}

// --- blocks ----------------------------------------------------------------------------------------------------

std::string LayerCheck::name_of_user(const Records& records, LayerId id) const {
  const std::optional<Ino> image = records.user_of(id);
  return image ? records.path_of(*image) : "layer " + std::to_string(id.value());
}

Status LayerCheck::run(const Records& records, bool read_data) {
  tell_lost_pages(records);
  std::uint64_t done = 0;
  for (const auto& [id, record] : records.layers) {
    findings_.progress(read_data ? "data" : "layers", done++, records.layers.size());
    ++findings_.report.layers;
    RK_TRY(check_layer(records, id, read_data));
  }
  return {};
}

Status LayerCheck::check_layer(const Records& records, LayerId id, bool read_data) {
  const auto layer = bench_.layers().get(id);
  if (!layer) {
    CheckProblem problem;
    problem.kind = CheckProblem::Kind::table;
    problem.path = name_of_user(records, id);
    problem.what = "layer " + std::to_string(id.value()) + " cannot be opened: " + describe(layer.error());
    problem.remedy = kRestore;
    problem.layer = id;
    findings_.add(std::move(problem));
    return {};
  }
  if (read_data) {
    if (const Status key = (*layer)->may_use_key(); !key) {
      findings_.report.unverified.push_back({name_of_user(records, id), describe(key.error())});
      read_data = false;
    }
  }
  return check_blocks(records, **layer, read_data);
}

Status LayerCheck::check_blocks(const Records& records, Layer& layer, bool read_data) {
  const BlockIndex end = (layer.size() + layer.block_size() - 1) / layer.block_size();
  BlockReport report(findings_, layer, name_of_user(records, layer.id()));
  std::map<std::string, std::uint64_t> sizes;  // of its data files, key: path
  const blocks::SlotFiles files(bench_.storage(), layer.id(), layer.block_size());
  auto size_of = [&](const std::string& path) {
    const auto found = sizes.find(path);
    if (found != sizes.end()) return found->second;
    const auto file = bench_.storage().open(path, io::OpenMode::read);
    const auto size = file ? (*file)->size() : fail(file.error());
    return sizes.emplace(path, size.value_or(0)).first->second;
  };
  const auto is_marked = [&](BlockIndex index) {
    return std::any_of(lost_.begin(), lost_.end(), [&](const Span& s) { return s.layer == layer.id() && s.first <= index && index < s.end; });
  };
  for (BlockIndex index = 0; index < end;) {
    RK_TRY_ASSIGN(const BlockTable::Run run, layer.blocks().find(index));
    const BlockIndex run_end = index + std::min(run.length, end - index);
    const BlockEntry& entry = run.entry;
    if (entry.state == BlockState::lost && !is_marked(index)) {
      report.add(index, run_end, "was lost when a repair replaced a page of the table");
    } else if (entry.state == BlockState::base && !layer.base()) {
      report.add(index, run_end, "was stored in a base layer that is missing");
    } else if (entry.state == BlockState::data) {
      const auto place = files.place_of(entry.slot);
      const std::string path = blocks::layer_path(layer.id()) + place.ending;
      if (place.offset + entry.stored_length > size_of(path)) {
        report.add(index, run_end, "is missing: " + path + " is missing or too short");
      } else if (read_data) {
        if (findings_.report.blocks++ % 4096 == 0) findings_.progress("data", index, end);
        findings_.report.bytes += entry.stored_length;
        blocks::LayerChange one;
        one.first = index;
        one.entries = {entry};
        const Result<bool> verified = layer.replay().verifies(one);
        if (!verified && verified.error().code != Errc::io) return fail(verified.error());
        if (!verified.value_or(false)) report.add(index, run_end, "of layer " + std::to_string(layer.id().value()) + " is damaged: it does not verify");
      }
    }
    index = run_end;
  }
  return {};
}

// --- files -----------------------------------------------------------------------------------------------------

void LayerCheck::note_file(const std::string& path, std::string what, std::string remedy, bool repairable) {
  CheckProblem problem;
  problem.kind = CheckProblem::Kind::file;
  problem.path = path;
  problem.what = std::move(what);
  problem.remedy = std::move(remedy);
  problem.repairable = repairable;
  findings_.add(std::move(problem));
}

Result<std::vector<std::string>> LayerCheck::find_orphan_files(const Records& records) {
  std::vector<std::string> orphans;
  RK_TRY_ASSIGN(const std::vector<std::string> directories, bench_.storage().list("layers"));
  for (const std::string& directory : directories) {
    const auto names = bench_.storage().list("layers/" + directory);
    if (!names) {
      note_file("layers/" + directory, "cannot be listed: " + describe(names.error()), "inspect it and remove it by hand", false);
      continue;
    }
    for (const std::string& name : *names) {
      const std::string path = "layers/" + directory + "/" + name;
      const std::optional<LayerId> layer = blocks::layer_of_file(name);
      if (!layer) {
        note_file(path, "is not a file of rekeyfs", "inspect it and remove it by hand", false);
      } else if (blocks::layer_directory(*layer) != "layers/" + directory ||
                 (!records.layers.contains(*layer) && !records.garbage.contains(*layer))) {
        note_file(path, "belongs to no layer", "it is removed", true);
        orphans.push_back(path);
      }
    }
  }
  return orphans;
}

}  // namespace rekeyfs::check
