// Decoding of records of the catalog and the journal. They are authenticated, so they were written by some version of
// rekeyfs, but possibly not by this one.
#include "engine/audit/event_chain.h"
#include "engine/audit/event_record.h"
#include "engine/blocks/layer_record.h"
#include "engine/boot/boot_profile.h"
#include "engine/catalog/catalog.h"
#include "engine/namespace/attribute_record.h"
#include "engine/namespace/entry_record.h"
#include "engine/namespace/inode_record.h"
#include "engine/replication/replication_record.h"
#include "tests/fuzz/fuzz.h"

namespace rekeyfs {
namespace {

enum class Form {
  canonical,  // a record has one encoding
  free,       // what is not looked at may be anything
};

template <typename Decode, typename Encode>
void round_trip(std::string_view bytes, Form form, Decode decode, Encode encode) {
  const auto record = decode(bytes);
  if (!record) return;
  const std::string again = encode(*record);
  if (form == Form::canonical) require(again == bytes, "what is decoded is encoded to the same bytes");
  const auto twice = decode(again);
  require(twice.has_value(), "what is encoded can be decoded");
  require(encode(*twice) == again, "and says the same");
}

template <typename Record>
void round_trip(std::string_view bytes, Form form) {
  round_trip(
      bytes, form, [](std::string_view text) { return Record::decode(text); },
      [](const Record& record) { return record.encode(); });
}

void try_operations(std::string_view payload) {
  const auto ops = catalog::decode_ops(payload);
  if (!ops) return;
  for (const catalog::Op& op : *ops)
    if (op.kind == catalog::Op::Kind::layer) round_trip<blocks::LayerChange>(op.value, Form::free);
}

// First byte: which record. The rest: its bytes.
void try_input(ByteView input) {
  Reader in(input);
  const auto which = in.get<std::uint8_t>();
  const std::string_view bytes = as_text(in.get_raw(in.left()));
  switch (which) {
    case 'I':  // fields that version 1 has not may come in any order, and more than once
      return round_trip<names::InodeRecord>(bytes, Form::free);
    case 'D':
      return round_trip<names::EntryRecord>(bytes, Form::canonical);
    case 'X':
      return round_trip<names::AttributeRecord>(bytes, Form::canonical);
    case 'L':  // as above
      return round_trip<blocks::LayerRecord>(bytes, Form::free);
    case 'T':
      return round_trip<blocks::LayerTableRecord>(bytes, Form::canonical);
    case 'P':
      return round_trip<boot::BootProfile>(bytes, Form::canonical);
    case 'R':
      return round_trip<replication::ReplicationRecord>(bytes, Form::canonical);
    case 'S':
      return round_trip<catalog::SuperRecord>(bytes, Form::canonical);
    case 'A':  // a text may be longer than those that are written, an errno one that has no name here
      return round_trip(
          bytes, Form::free, [](std::string_view text) { return audit::decode(1, text); },
          [](const Event& event) { return audit::encode(event); });
    case 'V':
      return round_trip<audit::ChainedRecord>(bytes, Form::canonical);
    case 'v':  // a field of a later version is not kept: an event is never written again
      return round_trip(
          bytes, Form::free, [](std::string_view text) { return audit::decode_body(1, text); },
          [](const Event& event) { return audit::encode_body(event); });
    case 'H':
      return round_trip<audit::ChainHead>(bytes, Form::canonical);
    case 'c':
      return round_trip<blocks::LayerChange>(bytes, Form::free);  // the rest of an entry without data
    case 'o':
      return try_operations(bytes);
    default:
      return;
  }
}

}  // namespace
}  // namespace rekeyfs

RK_FUZZ_TARGET(rekeyfs::try_input)
