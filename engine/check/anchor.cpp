#include "engine/check/anchor.h"

#include <charconv>
#include <vector>

namespace rekeyfs::check {
namespace {

constexpr std::string_view kMagic = "rekeyfs1";
constexpr std::size_t kParts = 7, kTagBytes = 8;

struct Anchor {
  std::uint64_t checkpoint = 0, mount = 0, records = 0;  // records: number of journal records since that checkpoint
  std::string store, mount_tag, state_tag;

  std::string text() const {
    return std::string(kMagic) + ":" + store + ":" + std::to_string(checkpoint) + ":" + std::to_string(mount) + ":" + std::to_string(records) + ":" +
           mount_tag + ":" + state_tag;
  }
};

bool parse_number(std::string_view text, std::uint64_t& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && end == text.data() + text.size();
}

Result<Anchor> parse(const std::string& text) {
  std::vector<std::string> parts{""};
  for (char c : text) {
    if (c == ':') parts.emplace_back();
    else parts.back() += c;
  }
  Anchor anchor;
  if (parts.size() != kParts || parts[0] != kMagic || !parse_number(parts[2], anchor.checkpoint) || !parse_number(parts[3], anchor.mount) ||
      !parse_number(parts[4], anchor.records))
    return fail(Errc::invalid, "\"" + text + "\" is not an anchor: give the text that 'rekeyfs check' printed");
  anchor.store = parts[1];
  anchor.mount_tag = parts[5];
  anchor.state_tag = parts[6];
  return anchor;
}

Result<crypto::Mac> mac_of(Bench& bench) {
  RK_TRY_ASSIGN(const crypto::Key key, crypto::derive_key(bench.root(), bench.id(), "rekeyfs anchor"));
  return crypto::Mac::create(key);
}

std::string short_hex(const crypto::Tag& tag) { return to_hex(ByteView(tag).first(kTagBytes)); }

Result<std::string> mount_tag_of(Bench& bench, std::uint64_t mount) {
  RK_TRY_ASSIGN(const crypto::Mac mac, mac_of(bench));
  RK_TRY_ASSIGN(const catalog::Salt salt, bench.catalog().epochs().salt_of(EpochId{static_cast<std::uint32_t>(mount)}));
  return short_hex(mac.tag(as_bytes(Writer().put_raw(as_bytes("mount")).put(mount).take()), salt));
}

// Authenticates the records of the last checkpoint and the first `records` in the journal since then; more may follow.
Result<std::string> state_tag_of(Bench& bench, std::size_t records) {
  RK_TRY_ASSIGN(const crypto::Mac mac, mac_of(bench));
  crypto::Sha256 journal;
  for (std::size_t i = 0; i < records; ++i) journal.update(as_bytes(Writer().put_string(bench.history().records[i].payload).take()));
  Writer state;
  state.put_raw(as_bytes("state")).put(bench.catalog().checkpointed().checkpoint);
  for (std::uint64_t part : bench.catalog().checkpointed().digest) state.put(part);
  return short_hex(mac.tag(as_bytes(state.text()), journal.finish()));
}

}  // namespace

Result<std::string> anchor_of(Bench& bench) {
  Anchor anchor;
  anchor.store = to_uuid_text(bench.id());
  anchor.checkpoint = bench.catalog().checkpointed().checkpoint;
  anchor.mount = bench.catalog().epochs().newest().value();
  RK_TRY_ASSIGN(anchor.mount_tag, mount_tag_of(bench, anchor.mount));
  anchor.records = bench.history().records.size();
  RK_TRY_ASSIGN(anchor.state_tag, state_tag_of(bench, anchor.records));
  return anchor.text();
}

Result<std::optional<std::string>> rolled_back(Bench& bench, const std::string& text) {
  RK_TRY_ASSIGN(const Anchor anchor, parse(text));
  if (anchor.store != to_uuid_text(bench.id()))
    return fail(Errc::invalid, "the anchor belongs to store " + anchor.store + ", and this is store " + to_uuid_text(bench.id()));
  const std::uint64_t checkpoint = bench.catalog().checkpointed().checkpoint;
  std::optional<std::string> older;
  if (checkpoint < anchor.checkpoint) {
    older = "its checkpoint has number " + std::to_string(checkpoint) + ", and the anchor's has number " + std::to_string(anchor.checkpoint);
  } else if (const auto tag = mount_tag_of(bench, anchor.mount); !tag || *tag != anchor.mount_tag) {
    older = "mount number " + std::to_string(anchor.mount) + " is not the mount of the anchor";
  } else if (checkpoint == anchor.checkpoint && bench.history().records.size() < anchor.records) {
    older = "its journal has " + std::to_string(bench.history().records.size()) + " records, and the anchor's journal had " + std::to_string(anchor.records);
  } else if (checkpoint == anchor.checkpoint) {
    RK_TRY_ASSIGN(const std::string state, state_tag_of(bench, anchor.records));
    if (state != anchor.state_tag) older = "its state is not the state of the anchor";
  }
  return older;
}

}  // namespace rekeyfs::check
