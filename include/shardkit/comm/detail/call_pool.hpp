// The calls under way that a decorator has wrapped, used again and again: a steady state allocates nothing.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

namespace shardkit::detail {

template <class Entry>
class call_pool {
 public:
  Entry& take() {
    if (idle_.empty()) {
      idle_.reserve(all_.size() + 1);
      all_.push_back(std::make_unique<Entry>());
      return *all_.back();
    }
    Entry& entry = *idle_.back();
    idle_.pop_back();
    return entry;
  }
  void give_back(Entry& entry) noexcept { idle_.push_back(&entry); }

 private:
  std::vector<std::unique_ptr<Entry>> all_;
  std::vector<Entry*> idle_;  // has room for all, so that giving back cannot fail
};

}  // namespace shardkit::detail
