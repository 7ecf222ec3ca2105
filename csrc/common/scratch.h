// Scratch memory of a thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace mmssm {

// Room for `size` values, which may hold anything. Up to kKeptBytes are kept
// until the thread ends: new memory from the system would cost as much as the
// whole scan of a small map. More than that is freed with this object.
template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t size) {
    if (size > kKeptBytes / int64_t(sizeof(T))) {
      own_.reset(new T[size]);
      data_ = own_.get();
      return;
    }
    thread_local std::vector<T> kept;
    if (int64_t(kept.size()) < size) kept.resize(size);
    data_ = kept.data();
  }
  T* data() const { return data_; }

 private:
  static constexpr int64_t kKeptBytes = 8 << 20;
  std::unique_ptr<T[]> own_;
  T* data_;
};

}  // namespace mmssm
