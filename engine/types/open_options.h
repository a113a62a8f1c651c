// OpenOptions: options for opening a store.
#pragma once


namespace rekeyfs {

struct OpenOptions {
  bool read_only = false;
  unsigned filler_workers = 2;  // 0: no background filling (tests)
};

}  // namespace rekeyfs
