// TransformRate: how fast blocks are transformed.
#pragma once


namespace rekeyfs {

struct TransformRate {
  enum class From {
    recent,    // the latest replications in this store
    measured,  // just now, with one thread: reading, decrypting, encrypting; not writing
  };
  double bytes_per_second = 0;  // 0: nothing is known
  From from = From::measured;
};

}  // namespace rekeyfs
