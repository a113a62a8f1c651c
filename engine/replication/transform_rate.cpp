#include "engine/replication/transform_rate.h"

#include <algorithm>
#include <chrono>

#include "engine/crypto/block_cipher.h"

namespace rekeyfs::replication {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kLongest{100};
constexpr std::size_t kPiece = 1u << 20;

}  // namespace

Result<double> measure_transform_rate(blocks::Layer& source) {
  RK_TRY_ASSIGN(const crypto::Key key, crypto::Key::random());
  RK_TRY_ASSIGN(const crypto::BlockCipher cipher, crypto::BlockCipher::create(crypto::Suite::aes_256_gcm, key));
  std::vector<std::byte> buffer(kPiece);
  std::uint64_t offset = 0, bytes = 0, counter = 0;
  const Clock::time_point start = Clock::now();
  while (Clock::now() - start < kLongest) {
    RK_TRY_ASSIGN(offset, source.find_data(offset));
    const std::uint64_t size = source.size();
    if (offset >= size) break;
    const ByteSpan piece = ByteSpan(buffer).first(std::min<std::uint64_t>(kPiece, size - offset));
    RK_TRY(source.read(offset, piece));
    for (std::size_t at = 0; at < piece.size(); at += source.block_size()) {
      const ByteSpan block = piece.subspan(at, std::min<std::size_t>(source.block_size(), piece.size() - at));
      crypto::Tag tag;
      RK_TRY(cipher.seal(++counter, {}, block, block, tag));
    }
    offset += piece.size();
    bytes += piece.size();
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return bytes == 0 ? 0 : static_cast<double>(bytes) / seconds;
}

}  // namespace rekeyfs::replication
