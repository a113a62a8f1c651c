// RecordCheck: whether the records of a catalog agree with each other, and what makes them agree again.
//
// Each problem that is told of is put right in the records as well (check/records.h). The rule is to keep whatever
// content can be reached, under its name where that is on record somewhere, else in /lost+found; a node that has to be
// made anew may be read by its owner only, and is never less encrypted than before. Single-threaded.
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
  void check_links();
  std::set<Ino> reached() const;
  std::multimap<Ino, const Entry*> names() const;

  Records& records_;
  Findings& findings_;
};

}  // namespace rekeyfs::check
