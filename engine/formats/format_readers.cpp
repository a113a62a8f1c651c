#include "engine/formats/format_readers.h"

#include <thread>
#include <utility>

namespace rekeyfs::formats {
namespace {

using Clock = std::chrono::steady_clock;
// A reader used more recently than this is not considered idle: ending it costs more than it gains.
constexpr auto kIdle = std::chrono::milliseconds(100);
constexpr auto kLook = std::chrono::milliseconds(10);   // poll interval while all readers are in use

}  // namespace

Result<std::shared_ptr<FormatReader>> FormatReaders::start(std::shared_ptr<Content> image, Format format,
                                                           const Patience& patience) {
  for (const Clock::time_point deadline = Clock::now() + patience.start; !make_room();) {
    if (Clock::now() > deadline)
      return fail(Errc::io, "too many images in other formats than raw are being read at once: the limit is " +
                                std::to_string(most_));
    std::this_thread::sleep_for(kLook);
  }
  auto reader = FormatReader::start(std::move(image), format, patience);
  Lock lock(mutex_);
  --starting_;
  if (reader) running_.push_back(*reader);
  return reader;
}

// Makes room for a reader that is about to start. False if all are in use.
bool FormatReaders::make_room() {
  Lock lock(mutex_);
  const auto is_over = [](const std::weak_ptr<FormatReader>& held) {
    const std::shared_ptr<FormatReader> reader = held.lock();
    return !reader || reader->state() != FormatReader::State::running;
  };
  std::erase_if(running_, is_over);
  if (running_.size() + starting_ >= most_) end_idlest();
  std::erase_if(running_, is_over);
  if (running_.size() + starting_ >= most_) return false;
  ++starting_;
  return true;
}

void FormatReaders::end_idlest() {
  std::shared_ptr<FormatReader> idlest;
  for (const std::weak_ptr<FormatReader>& held : running_) {
    std::shared_ptr<FormatReader> reader = held.lock();
    if (reader && (!idlest || reader->last_used() < idlest->last_used())) idlest = std::move(reader);
  }
  if (idlest) idlest->end_if_idle_for(kIdle);
}

}  // namespace rekeyfs::formats
