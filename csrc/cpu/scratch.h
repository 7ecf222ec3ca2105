// Scratch memory of a thread.
#pragma once

#include <cstdint>
#include <vector>

namespace mmssm {

// Kept until the thread ends: some hundred KB, which fresh from the system
// would cost as much as a small map's whole scan.
template <typename T>
T* scratch_of_thread(int64_t size) {
  thread_local std::vector<T> memory;
  if (int64_t(memory.size()) < size) memory.resize(size);
  return memory.data();
}

}  // namespace mmssm
