// TransformRate: how fast blocks are transformed.
#pragma once


namespace rekeyfs {

struct TransformRate {
  enum class From {
    recent,    // average of the latest replications in this store
    measured,  // measured now with one thread: reading, decrypting, encrypting; without writing
  };
  double bytes_per_second = 0;  // 0: unknown
  From from = From::measured;
};

}  // namespace rekeyfs
