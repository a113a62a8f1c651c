// OpenOptions: options for opening a store.
#pragma once


namespace rekeyfs {

struct OpenOptions {
  bool read_only = false;
  unsigned filler_workers = 2;  // 0: no background filling (tests)
  unsigned user_keys = 0;       // how many keys each user may own who is not an operator
};

}  // namespace rekeyfs
