// RecordCheck: checks that the records of a catalog are consistent, and repairs them.
//
// Every reported problem is also repaired in the records (check/records.h). The rule is to keep all reachable content:
// under its name if any record has it, else in /lost+found. A node that has to be recreated is readable by its owner
// only and never less encrypted than before. Single-threaded.
#pragma once

#include "engine/check/records.h"

namespace rekeyfs::check {

class RecordCheck {
 public:
  RecordCheck(Records& records, Findings& findings) : records_(records), findings_(findings) {}
  void run();

 private:
  using Inode = names::InodeRecord;

  void check_layers();
  void check_layer_pairs();
  void check_bases();
  void check_children();
  void check_images();
  void drop_image(Ino ino, const std::string& what);
  void check_owners();
  void settle_unused_layer(LayerId id);
  void check_missing_inodes();
  void make_inode_anew(const Entry& named);
  Inode new_image(Ino ino, LayerId layer) const;
  Inode new_directory(Ino ino) const;
  void check_root();
  void check_entries();
  void check_reachable();
  void reattach(Ino ino);
  Ino lost_and_found();
  void check_replications();
  void check_dependents();
  void check_quotas();
  void check_links();
  std::set<Ino> reached() const;
  std::multimap<Ino, const Entry*> names() const;

  Records& records_;
  Findings& findings_;
};

}  // namespace rekeyfs::check
