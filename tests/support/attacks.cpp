#include "tests/support/attacks.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "engine/base/bytes.h"
#include "engine/blocks/layer_record.h"
#include "engine/namespace/inode_record.h"
#include "tests/support/lmdb_editor.h"

namespace rekeyfs::test {
namespace {

namespace stdfs = std::filesystem;

constexpr std::size_t kBlock = 16384, kPage = 4096;
constexpr std::string_view kCatalog = "catalog/data.mdb";

bool is_data(const std::string& file) {
  return file.find(".data") != std::string::npos || file.find(".spill") != std::string::npos;
}
bool is_table(const std::string& file) {
  return file.ends_with(".table");
}
bool is_journal(const std::string& file) {
  return file.starts_with("journal/");
}
std::size_t unit_of(const std::string& file) {
  return is_data(file) ? kBlock : kPage;
}

struct Piece {
  std::string file;
  std::uint64_t offset;
  std::string bytes;
  std::string name() const { return file + " at " + std::to_string(offset); }
};

std::vector<Piece> pieces_of(const StoreImage& image, const std::function<bool(const std::string&)>& wanted) {
  std::vector<Piece> pieces;
  for (const std::string& file : image.files()) {
    if (!wanted(file)) continue;
    const std::size_t unit = unit_of(file);
    for (const std::uint64_t number : image.pieces(file, unit))
      pieces.push_back({file, number * unit, image.bytes(file, number * unit, unit)});
  }
  return pieces;
}

void put_piece(const std::string& store, const Piece& at, const std::string& bytes) {
  overwrite(store + "/" + at.file, at.offset, bytes);
}

void exchange_files(const std::string& one, const std::string& other) {
  const std::string aside = one + ".aside";
  stdfs::rename(one, aside);
  stdfs::rename(other, one);
  stdfs::rename(aside, other);
}

std::string journal_name(const StoreImage& image) {
  const auto& files = image.files();
  return *std::find_if(files.begin(), files.end(), is_journal);
}

// Splits a segment into its header and its records, each with its length.
constexpr std::size_t kJournalHeader = 52;
std::vector<std::string> records_of(const std::string& journal) {
  std::vector<std::string> records;
  for (std::size_t at = kJournalHeader; at + 4 <= journal.size();) {
    const std::size_t size = 4 + Reader(std::string_view(journal).substr(at)).get<std::uint32_t>();
    if (size > journal.size() - at) break;
    records.push_back(journal.substr(at, size));
    at += size;
  }
  return records;
}
std::string join(const std::string& header, const std::vector<std::string>& records) {
  std::string journal = header;
  for (const std::string& record : records) journal += record;
  return journal;
}

std::map<std::string, std::string> records_in(const StoreImage& image, const std::string& scratch) {
  stdfs::remove_all(scratch);
  stdfs::create_directory(scratch);
  std::ofstream(scratch + "/data.mdb", std::ios::binary) << image.bytes(std::string(kCatalog));
  return LmdbEditor(scratch).all();
}

std::string name_of_key(const std::string& key) {
  std::string name(1, key[0]);
  for (const char byte : key.substr(1)) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    name += kDigits[static_cast<unsigned char>(byte) >> 4];
    name += kDigits[byte & 15];
  }
  return name;
}

Attack edited(std::string what, std::function<void(LmdbEditor&)> edit) {
  return {"catalog: " + std::move(what), {std::string(kCatalog)}, [edit = std::move(edit)](const std::string& store) {
            LmdbEditor editor(store + "/catalog");
            edit(editor);
          }};
}

Attack put(std::string what, const std::string& key, const std::string& value) {
  return edited(std::move(what), [key, value](LmdbEditor& editor) { editor.put(key, value); });
}

// Records forged without keys: well-formed, but not encrypted.
std::string made_up(const std::string& key) {
  if (key[0] == 'L') return blocks::LayerRecord{}.encode();  // plain
  names::InodeRecord inode;
  inode.kind = NodeKind::directory;
  inode.parent = kRootIno;
  return inode.encode();
}

}  // namespace

void append(Attacks& to, Attacks more) {
  std::move(more.begin(), more.end(), std::back_inserter(to));
}

std::vector<FileBit> bits_of(const StoreImage& image, std::string_view part, Bits bits, std::mt19937_64& random) {
  std::vector<FileBit> all;
  for (const std::string& file : image.files()) {
    if (file.find(part) == std::string::npos) continue;
    for (std::uint64_t byte = 0; byte < image.size(file); ++byte) {
      if (bits == Bits::one_a_byte)
        all.push_back({file, byte, static_cast<unsigned>(random() % 8)});
      else
        for (unsigned bit = 0; bit < 8; ++bit) all.push_back({file, byte, bit});
    }
  }
  return all;
}

Attack flipped(const FileBit& bit) {
  const std::string file(bit.file);
  return {file + ": bit " + std::to_string(bit.bit) + " of byte " + std::to_string(bit.byte) + " flipped",
          {file},
          [=](const std::string& store) { flip_bit(store + "/" + file, bit.byte, bit.bit); }};
}

Attacks exchanged_pieces(const StoreImage& image) {
  Attacks all;
  for (const auto& wanted : std::initializer_list<bool (*)(const std::string&)>{is_data, is_table}) {
    const std::vector<Piece> pieces = pieces_of(image, wanted);
    for (const Piece& one : pieces) {
      for (const Piece& other : pieces) {
        if (&one == &other || one.bytes == other.bytes) continue;
        all.push_back({other.name() + " over " + one.name(), {one.file}, [=](const std::string& store) {
                         put_piece(store, one, other.bytes);
                       }});
        if (&one < &other)
          all.push_back(
              {one.name() + " exchanged with " + other.name(), {one.file, other.file}, [=](const std::string& store) {
                 put_piece(store, one, other.bytes);
                 put_piece(store, other, one.bytes);
               }});
      }
    }
  }
  return all;
}

Attacks old_pieces(const StoreImage& image, const StoreImage& older) {
  Attacks all;
  for (const Piece& old :
       pieces_of(older, [](const std::string& file) { return is_data(file) || is_table(file) || file == kCatalog; })) {
    if (!image.contains(old.file) || image.bytes(old.file, old.offset, old.bytes.size()) == old.bytes) continue;
    all.push_back(
        {"what was in " + old.name(), {old.file}, [=](const std::string& store) { put_piece(store, old, old.bytes); }});
  }
  for (const std::string& file : older.files()) {
    if (file == "reserve" || file == "lock" || (image.contains(file) && image.bytes(file) == older.bytes(file)))
      continue;
    all.push_back({file + " as it was", {file}, [file, bytes = older.bytes(file)](const std::string& store) {
                     std::ofstream(store + "/" + file, std::ios::binary | std::ios::trunc) << bytes;
                   }});
  }
  return all;
}

Attacks mishandled_files(const StoreImage& image) {
  Attacks all;
  for (const std::string& file : image.files()) {
    auto add = [&](const std::string& what, std::function<void(const std::string&)> edit) {
      all.push_back({file + " " + what, {file}, [file, edit = std::move(edit)](const std::string& store) {
                       edit(store + "/" + file);
                     }});
    };
    const std::uint64_t size = image.size(file);
    std::set<std::uint64_t> sizes{0, 1, size / 2, size - 1};
    for (std::uint64_t cut = kPage; cut < size; cut += std::max<std::uint64_t>(kPage, size / 8 / kPage * kPage))
      sizes.insert(cut);
    for (const std::uint64_t cut : sizes)
      if (cut < size)
        add("cut to " + std::to_string(cut), [cut](const std::string& path) { stdfs::resize_file(path, cut); });
    add("grown", [](const std::string& path) {
      std::ofstream(path, std::ios::binary | std::ios::app) << std::string(5000, 'x');
    });
    add("zeroed", [size](const std::string& path) {
      stdfs::resize_file(path, 0);
      stdfs::resize_file(path, size);
    });
    add("removed", [](const std::string& path) { stdfs::remove(path); });
    add("replaced by a directory", [](const std::string& path) {
      stdfs::remove(path);
      stdfs::create_directory(path);
    });
    add("replaced by a link to it", [](const std::string& path) {
      stdfs::rename(path, path + ".moved");
      stdfs::create_symlink(path + ".moved", path);
    });
    add("replaced by a link to nothing", [](const std::string& path) {
      stdfs::remove(path);
      stdfs::create_symlink("nothing", path);
    });
    add("replaced by a pipe", [](const std::string& path) {
      stdfs::remove(path);
      if (::mkfifo(path.c_str(), 0600) != 0) std::abort();
    });
    for (const std::string& other : image.files()) {
      if (other <= file) continue;
      all.push_back({file + " exchanged with " + other, {file, other}, [=](const std::string& store) {
                       exchange_files(store + "/" + file, store + "/" + other);
                     }});
    }
  }
  return all;
}

Attacks mishandled_directories(const StoreImage& image) {
  std::set<std::string> directories;
  for (const std::string& file : image.files())
    for (std::string path = file; path.find('/') != std::string::npos;) {
      path = path.substr(0, path.rfind('/'));
      directories.insert(path);
    }
  Attacks all;
  for (const std::string& directory : directories) {
    std::set<std::string> files;
    for (const std::string& file : image.files())
      if (file.starts_with(directory + "/")) files.insert(file);
    all.push_back(
        {directory + " removed", files, [=](const std::string& store) { stdfs::remove_all(store + "/" + directory); }});
    all.push_back({directory + " replaced by a file", files, [=](const std::string& store) {
                     stdfs::remove_all(store + "/" + directory);
                     std::ofstream(store + "/" + directory) << "a file";
                   }});
    all.push_back({directory + " replaced by a link to it", files, [=](const std::string& store) {
                     stdfs::rename(store + "/" + directory, store + "/moved");
                     stdfs::create_symlink(store + "/moved", store + "/" + directory);
                   }});
  }
  for (const char* name : {"journal/ffffffffffffffff", "journal/7fffffffffffffff", "journal/0000000000000000",
                           "journal/5", "journal/note", "journal/00000000000000000000000000000007", "layers/note",
                           "layers/ff/00000000000000ff.data0", "layers/00/00000000000000ff.table", "layers/ff/note",
                           "catalog/note", "note", "catalog.new/data.mdb", "rekeyfs.store.new"})
    all.push_back({"a foreign file " + std::string(name), {name}, [=](const std::string& store) {
                     stdfs::create_directories(stdfs::path(store + "/" + name).parent_path());
                     std::ofstream(store + "/" + name) << std::string(100, 'x');
                   }});
  return all;
}

Attacks lost_records(const StoreImage& image, const StoreImage& older, const std::string& scratch) {
  const auto records = records_in(image, scratch), old = records_in(older, scratch);
  Attacks all;
  for (const auto& [key, value] : records) {
    const std::string name = name_of_key(key);
    all.push_back(edited(name + " dropped", [key = key](LmdbEditor& editor) { editor.erase(key); }));
    if (const auto before = old.find(key); before != old.end() && before->second != value)
      all.push_back(put(name + " put back", key, before->second));
  }
  for (const auto& [key, value] : old)
    if (!records.contains(key)) all.push_back(put(name_of_key(key) + " brought back", key, value));
  return all;
}

Attacks forged_records(const StoreImage& image, const StoreImage& foreign, const std::string& scratch) {
  const auto records = records_in(image, scratch), other_store = records_in(foreign, scratch);
  Attacks all;
  for (const auto& [key, value] : records) {
    const std::string name = name_of_key(key);
    for (const auto& [from, bytes] : records) {
      if (from == key || bytes == value) continue;
      all.push_back(put(name_of_key(from) + " over " + name, key, bytes));
      if (from[0] != key[0] || from < key) continue;
      all.push_back(edited(name + " exchanged with " + name_of_key(from),
                           [key = key, value = value, from = from, bytes = bytes](LmdbEditor& editor) {
                             editor.put(key, bytes);
                             editor.put(from, value);
                           }));
    }
    if (const auto theirs = other_store.find(key); theirs != other_store.end())
      all.push_back(put(name + " of another store", key, theirs->second));
    if (key.size() > 1) {
      std::string near = key;
      near.back() = static_cast<char>(near.back() + 40);
      all.push_back(put(name + " doubled as " + name_of_key(near), near, value));
    }
    all.push_back(put(name + " cut short", key, value.substr(0, value.size() / 2)));
    all.push_back(put(name + " emptied", key, ""));
    if (key[0] == 'L' || key[0] == 'I') all.push_back(put(name + " made up", key, made_up(key)));
  }
  return all;
}

Attacks forged_journals(const StoreImage& image, const StoreImage& older, const StoreImage& foreign) {
  const std::string file = journal_name(image);
  const std::string journal = image.bytes(file), header = journal.substr(0, kJournalHeader);
  const std::vector<std::string> records = records_of(journal),
                                 others = records_of(foreign.bytes(journal_name(foreign)));
  Attacks all;
  auto add = [&](const std::string& what, std::string bytes) {
    all.push_back({"journal: " + what, {file}, [=](const std::string& store) {
                     std::ofstream(store + "/" + file, std::ios::binary | std::ios::trunc) << bytes;
                   }});
  };
  for (std::size_t i = 0; i < records.size(); ++i) {
    const std::string number = "record " + std::to_string(i);
    std::vector<std::string> changed = records;
    changed.erase(changed.begin() + static_cast<std::ptrdiff_t>(i));
    add(number + " dropped", join(header, changed));
    add("cut before " + number, join(header, {records.begin(), records.begin() + static_cast<std::ptrdiff_t>(i)}));
    for (std::size_t k = 0; k < records.size(); ++k) {
      if (k == i) continue;
      changed = records;
      std::swap(changed[i], changed[k]);
      if (k > i) add(number + " exchanged with " + std::to_string(k), join(header, changed));
      changed = records;
      changed[i] = records[k];
      add(number + " replaced by " + std::to_string(k), join(header, changed));
    }
    changed = records;
    changed.push_back(records[i]);
    add(number + " again at the end", join(header, changed));
    if (i >= others.size()) continue;
    changed[i] = others[i];
    add(number + " of another store", join(header, changed));
  }
  add("of another store", foreign.bytes(journal_name(foreign)));
  add("of another mount", older.bytes(journal_name(older)));
  add("records of another mount", join(header, records_of(older.bytes(journal_name(older)))));
  add("records of another store", join(header, others));
  return all;
}

}  // namespace rekeyfs::test
