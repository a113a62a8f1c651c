// The tables of the catalog and their keys. A key is one letter for the table, followed by the rest. Numbers in keys
// are big-endian, so that a range of keys is a range of numbers.
#pragma once

#include <string>

#include "engine/base/bytes.h"
#include "engine/base/ids.h"

namespace rekeyfs::catalog {

enum class Table : char {  // letters on disk, never reused
  epoch = 'E',        // epoch number -> salt
  super = 'S',        // "" -> the state of the last checkpoint
  inode = 'I',        // ino -> InodeRecord
  entry = 'D',        // parent ino, keyed hash of the name -> DirectoryEntryRecord
  attribute = 'X',    // ino, keyed hash of the name -> name and value
  orphan = 'O',       // ino of an unlinked image that is still open -> ""
  layer = 'L',        // layer -> LayerRecord
  layer_table = 'T',  // layer -> LayerTableRecord
  child = 'C',        // base layer, layer -> "" (which layers read from a base)
  garbage = 'G',      // unused layer whose files the next checkpoint removes -> ""
  profile = 'P',      // layer -> BootProfile
  replication = 'R',  // ino of the target -> ReplicationRecord
  master_key = 'K',   // key id -> key ring record
  rotation = 'W',     // ino of a directory -> id of the key that its images get
  audit = 'A',        // number of an event -> its record, of before the audit log had a chain; no longer made
  event = 'V',        // number of an event -> its record in the chain
  event_head = 'H',   // "" -> the head of that chain
  quota = 'Q',        // ino of a directory that has a quota -> ""
  clock = 'Y',        // "" -> store time, and the last wall-clock time seen
  deletion = 'U',     // key id -> when its pending deletion is due
};

inline std::string make_key(Table table) { return std::string(1, static_cast<char>(table)); }
inline std::string make_key(Table table, std::uint64_t number) {
  return Writer().put(static_cast<std::uint8_t>(table)).put_be64(number).take();
}
inline std::string make_key(Table table, std::uint64_t first, std::uint64_t second) {
  return Writer().put(static_cast<std::uint8_t>(table)).put_be64(first).put_be64(second).take();
}
inline std::string make_key(Table table, std::uint64_t number, ByteView hash) {
  return Writer().put(static_cast<std::uint8_t>(table)).put_be64(number).put_raw(hash).take();
}
inline std::string make_key(Table table, ByteView id) {
  return Writer().put(static_cast<std::uint8_t>(table)).put_raw(id).take();
}

}  // namespace rekeyfs::catalog
