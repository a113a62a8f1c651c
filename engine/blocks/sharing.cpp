#include "engine/blocks/sharing.h"

#include <utility>

namespace rekeyfs::blocks {

Sharing::Hold::Hold(Sharing& sharing) : sharing_(&sharing) {
  Lock lock(sharing.mutex_);
  ++sharing.holds_;
}

Sharing::Hold::Hold(Hold&& other) noexcept : sharing_(std::exchange(other.sharing_, nullptr)) {}

Sharing::Hold::~Hold() {
  if (!sharing_) return;
  Lock lock(sharing_->mutex_);
  --sharing_->holds_;
  sharing_->has_record_.reset();  // the holder may have put a record
}

bool Sharing::is_shared() const {
  Lock lock(mutex_);
  return holds_ > 0 || has_record();
}

bool Sharing::has_record() const {
  if (has_record_) return *has_record_;
  bool found = false;
  const Status looked = catalog_.scan(catalog::make_key(catalog::Table::child, layer_.value()), "", [&](std::string_view, std::string_view) {
    found = true;
    return false;
  });
  if (!looked) return true;
  has_record_ = found;
  return found;
}

void Sharing::record_erased() {
  Lock lock(mutex_);
  has_record_.reset();
}

}  // namespace rekeyfs::blocks
