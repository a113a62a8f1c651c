// OpenOptions: how a store is opened.
#pragma once


namespace rekeyfs {

struct OpenOptions {
  bool read_only = false;
  unsigned filler_workers = 2;  // 0: nothing is filled in the background (tests)
};

}  // namespace rekeyfs
