#include "engine/blocks/slot_files.h"

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "engine/base/exceptions.h"

namespace rekeyfs::blocks {
namespace {
constexpr std::uint64_t kSlotsPerFile = std::uint64_t{1} << 26;
}

std::string layer_directory(LayerId layer) {
  char text[24];
  std::snprintf(text, sizeof text, "layers/%02x", static_cast<unsigned>(layer.value() & 0xff));
  return text;
}

std::string layer_path(LayerId layer) {
  char text[24];
  std::snprintf(text, sizeof text, "/%016llx", static_cast<unsigned long long>(layer.value()));
  return layer_directory(layer) + text;
}

std::optional<LayerId> layer_of_file(std::string_view name) {
  constexpr std::size_t kDigits = 16;
  if (name.size() <= kDigits) return std::nullopt;
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + kDigits, number, 16);
  if (error != std::errc{} || end != name.data() + kDigits) return std::nullopt;
  const std::string_view ending = name.substr(kDigits);
  const auto is_numbered = [&](std::string_view kind) {
    return ending.starts_with(kind) && ending.size() > kind.size() && ending.find_first_not_of("0123456789", kind.size()) == std::string_view::npos;
  };
  if (ending == ".table" || is_numbered(".data") || is_numbered(".spill")) return LayerId{number};
  return std::nullopt;
}

SlotFiles::Place SlotFiles::place_of(Slot slot) const {
  const bool spill = (slot & kSpillBit) != 0;
  const std::uint64_t number = slot & ~kSpillBit;
  const std::uint64_t offset = number % kSlotsPerFile * block_size_;
  return {(spill ? ".spill" : ".data") + std::to_string(number / kSlotsPerFile), offset, kSlotsPerFile * block_size_ - offset};
}

Result<io::File*> SlotFiles::file_of(const std::string& ending, bool write) {
  Lock lock(mutex_);
  Segment& segment = segments_[ending];
  if (!segment.file) {
    const std::string path = layer_path(layer_) + ending;
    auto file = storage_.open(path, io::OpenMode::write);
    if (!file && file.error().code == Errc::not_found && write) {
      new_names_ = true;  // even if a later step fails, because the file exists
      file = storage_.open(path, io::OpenMode::create);
    }
    if (!file && file.error().code == Errc::not_found) return fail(Errc::corrupt, "the data file " + path + " is missing");
    if (!file) return fail(file.error());
    segment.file = std::move(*file);
  }
  return segment.file.get();
}

void SlotFiles::written(const std::string& ending) {
  Lock lock(mutex_);
  segments_[ending].unsynced = true;
}

Status SlotFiles::read(Slot first, ByteSpan out) {
  while (!out.empty()) {
    const Place place = place_of(first);
    const std::size_t size = std::min<std::uint64_t>(out.size(), place.left);
    RK_TRY_ASSIGN(io::File* const file, file_of(place.ending, false));
    RK_TRY_ASSIGN(const std::size_t got, file->read(place.offset, out.first(size)));
    std::fill(out.begin() + static_cast<std::ptrdiff_t>(got), out.begin() + static_cast<std::ptrdiff_t>(size), std::byte{0});
    out = out.subspan(size);
    first += size / block_size_;
  }
  return {};
}

Status SlotFiles::write(Slot first, ByteView bytes) {
  while (!bytes.empty()) {
    const Place place = place_of(first);
    const std::size_t size = std::min<std::uint64_t>(bytes.size(), place.left);
    RK_TRY_ASSIGN(io::File* const file, file_of(place.ending, true));
    RK_TRY(file->write(place.offset, bytes.first(size)));
    written(place.ending);
    bytes = bytes.subspan(size);
    first += size / block_size_;
  }
  return {};
}

Status SlotFiles::punch(const SlotRun& run) {
  return each_part(run, [&](const Place& place, std::uint64_t bytes) -> Status {
    RK_TRY_ASSIGN(io::File* const file, file_of(place.ending, false));
    return file->punch(place.offset, bytes);
  });
}

Status SlotFiles::reserve(const SlotRun& run) {
  return each_part(run, [&](const Place& place, std::uint64_t bytes) -> Status {
    RK_TRY_ASSIGN(io::File* const file, file_of(place.ending, true));
    RK_TRY(file->reserve(place.offset, bytes));
    written(place.ending);
    return {};
  });
}

Result<std::uint64_t> SlotFiles::reserved(const SlotRun& run) {
  std::uint64_t sum = 0;
  RK_TRY(each_part(run, [&](const Place& place, std::uint64_t bytes) -> Status {
    RK_TRY_ASSIGN(const bool is_there, storage_.exists(layer_path(layer_) + place.ending));
    if (!is_there) return {};
    RK_TRY_ASSIGN(io::File* const file, file_of(place.ending, false));
    RK_TRY_ASSIGN(const std::uint64_t held, file->reserved(place.offset, bytes));
    sum += held;
    return {};
  }));
  return sum;
}

bool SlotFiles::needs_sync() const {
  Lock lock(mutex_);
  return under_way_ || new_names_ || std::any_of(segments_.begin(), segments_.end(), [](const auto& s) { return s.second.unsynced; });
}

Status SlotFiles::sync() {
  Lock one_at_a_time(syncing_);
  std::vector<Segment*> taken;
  bool names = false;
  {
    Lock lock(mutex_);
    taken.reserve(segments_.size());
    for (auto& [ending, segment] : segments_)
      if (std::exchange(segment.unsynced, false)) taken.push_back(&segment);
    names = std::exchange(new_names_, false);
    under_way_ = true;
  }
  const Status status = caught([&]() -> Status {
    for (const Segment* segment : taken) RK_TRY(segment->file->sync());
    return names ? storage_.sync_directory(layer_directory(layer_)) : Status{};
  });
  Lock lock(mutex_);
  under_way_ = false;
  if (status) return status;
  // After a failure none of the writes counts as synced.
  for (Segment* segment : taken) segment->unsynced = true;
  new_names_ = new_names_ || names;
  return status;
}

bool SlotFiles::is_one(std::string_view path) {
  return path.find(".data") != std::string_view::npos || path.find(".spill") != std::string_view::npos;
}

std::map<LayerId, Status> SlotFiles::remove_all(io::Storage& storage, const std::vector<LayerId>& layers) {
  std::map<LayerId, Status> gone;
  std::map<std::string, std::vector<LayerId>> by_directory;
  for (const LayerId layer : layers) by_directory[layer_directory(layer)].push_back(layer);
  for (const auto& [directory, those] : by_directory) {
    const auto names = storage.list(directory);
    for (const LayerId layer : those) gone.insert_or_assign(layer, names ? Status{} : fail(names.error()));
    for (const std::string& name : names.value_or(std::vector<std::string>{})) {
      const std::optional<LayerId> layer = layer_of_file(name);
      const auto found = layer ? gone.find(*layer) : gone.end();
      if (found == gone.end() || layer_directory(*layer) != directory) continue;
      if (Status removed = storage.remove(directory + "/" + name); !removed) found->second = std::move(removed);
    }
  }
  return gone;
}

}  // namespace rekeyfs::blocks
