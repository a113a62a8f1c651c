// Segments of the journal: whatever happened to the files, the records read are a prefix of those appended.
#include "engine/catalog/journal.h"

#include "engine/catalog/catalog.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory_storage.h"

namespace rekeyfs {
namespace {

using catalog::Journal;

constexpr Uuid kStore{std::byte{7}};
constexpr EpochId kEpoch{1};

std::string path_of(std::uint64_t segment) {
  char name[32];
  std::snprintf(name, sizeof name, "journal/%016llx", static_cast<unsigned long long>(segment));
  return name;
}

class JournalFiles {
 public:
  explicit JournalFiles(const crypto::Key& key) : key_(key) {}

  // Records and the ends of segments, as the input says.
  void append(Reader& in) {
    const auto journal = must(Journal::start(storage_, kStore, kEpoch, aead(), 1));
    for (auto steps = in.get<std::uint8_t>(); steps > 0 && in.ok(); --steps) {
      if (in.get<std::uint8_t>() % 4 == 0) {
        segments_ = must(journal->rotate());
        continue;
      }
      std::string payload = in.get_string();
      must(journal->append(payload));
      appended_.push_back(std::move(payload));
    }
  }

  // Bytes changed, files cut, lengthened, removed or exchanged. Whether anything was done.
  bool damage(Reader& in) {
    bool any = false;
    for (auto steps = in.get<std::uint8_t>(); steps > 0 && in.ok(); --steps, any = true) {
      const auto what = in.get<std::uint8_t>();
      const std::string path = path_of(1 + in.get<std::uint8_t>() % segments_);
      std::string& bytes = storage_.bytes(path);
      const std::size_t at = bytes.empty() ? 0 : in.get<std::uint16_t>() % bytes.size();
      switch (what % 5) {
        case 0:
          bytes.resize(at);
          break;
        case 1:
          bytes.insert(at, in.get_string());
          break;
        case 2:
          must(storage_.remove(path));
          break;
        case 3:
          bytes.swap(storage_.bytes(path_of(1 + in.get<std::uint8_t>() % (segments_ + 1))));
          break;
        default:
          if (const auto change = in.get<std::uint8_t>(); !bytes.empty())
            bytes[at] = static_cast<char>(bytes[at] ^ change);
      }
    }
    return any;
  }
  void put_raw(std::string_view bytes) { storage_.bytes(path_of(1)) = bytes; }

  Journal::History read() {
    auto history =
        Journal::read(storage_, kStore, 1, [this](EpochId epoch) -> Result<std::shared_ptr<const crypto::Aead>> {
          if (epoch != kEpoch) return fail(Errc::corrupt);
          return std::make_shared<const crypto::Aead>(aead());
        });
    require(history.has_value(), "a damaged journal is not an error");
    return std::move(*history);
  }
  void expect_a_beginning(bool whole) {
    const Journal::History history = read();
    require(history.records.size() <= appended_.size(), "no record appears that was never appended");
    for (std::size_t i = 0; i < history.records.size(); ++i)
      require(history.records[i].payload == appended_[i], "records come back in their order");
    if (!whole) return;
    require(history.records.size() == appended_.size() && history.broken.empty(),
            "an undamaged journal is read to its end");
  }

 private:
  crypto::Aead aead() const { return must(crypto::Aead::create(key_, crypto::NonceSource::counting)); }

  const crypto::Key& key_;
  MemoryStorage storage_;
  std::uint64_t segments_ = 1;
  std::vector<std::string> appended_;
};

// First byte: 0 for a segment as it lies there, anything else for records that are appended, and damage.
void try_input(ByteView input) {
  static const crypto::Key key = fixed_key();
  JournalFiles files(key);
  Reader in(input);
  if (in.get<std::uint8_t>() == 0) {
    files.put_raw(as_text(in.get_raw(in.left())));
    return static_cast<void>(files.read());
  }
  files.append(in);
  const bool damaged = files.damage(in);
  files.expect_a_beginning(!damaged);
}

}  // namespace
}  // namespace rekeyfs

RK_FUZZ_TARGET(rekeyfs::try_input)
