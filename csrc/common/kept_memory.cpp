#include "kept_memory.h"

#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#ifndef _WIN32
#include <pthread.h>
#endif

#include <deque>
#include <mutex>
#include <unordered_map>

namespace mmssm {
namespace {

// Smaller blocks are left to the C library. It keeps them, too: what it gives
// back to the system at once, and the system fills with zeros again, are large
// ones.
constexpr size_t kSmallest = 1 << 20;

// The least of 8 sizes per power of two that is not smaller.
size_t rounded(size_t bytes) {
  size_t power = kSmallest;
  while (power * 2 <= bytes) power *= 2;
  const size_t unit = power / 8;
  return (bytes + unit - 1) / unit * unit;
}

struct Block {
  void* data;
  size_t size;
};

// The large blocks: those in use, and those freed that are kept.
class Blocks {
 public:
  std::mutex mutex;

  void keep_most(size_t bytes) {
    const std::lock_guard<std::mutex> guard(mutex);
    most_ = bytes;
    shrink();
  }

  void* take(size_t size) {
    const std::lock_guard<std::mutex> guard(mutex);
    void* data = nullptr;
    for (auto at = kept_.rbegin(); at != kept_.rend(); ++at) {
      if (at->size != size) continue;
      data = at->data;
      kept_.erase(std::next(at).base());
      total_ -= size;
      break;
    }
    if (!data) data = allocate(size);
    in_use_[data] = size;
    return data;
  }

  // False if the block is none of these.
  bool put(void* data) {
    const std::lock_guard<std::mutex> guard(mutex);
    const auto found = in_use_.find(data);
    if (found == in_use_.end()) return false;
    kept_.push_back({data, found->second});
    total_ += found->second;
    in_use_.erase(found);
    shrink();
    return true;
  }

  // Processes that are forked, such as those that load data, keep nothing.
  void unlock_in_child() {
    most_ = 0;
    mutex.unlock();
  }

 private:
  void* allocate(size_t size) {
    try {
      return c10::alloc_cpu(size);
    } catch (const c10::Error&) {
      const size_t most = most_;
      most_ = 0;
      shrink();
      most_ = most;
      return c10::alloc_cpu(size);
    }
  }

  // Frees the oldest.
  void shrink() {
    while (total_ > most_) {
      total_ -= kept_.front().size;
      c10::free_cpu(kept_.front().data);
      kept_.pop_front();
    }
  }

  std::unordered_map<void*, size_t> in_use_;
  std::deque<Block> kept_;
  size_t total_ = 0, most_ = 0;
};

// Never destroyed: tensors may be freed after everything else.
Blocks& blocks() {
  static Blocks* all = [] {
    auto* made = new Blocks;
#ifndef _WIN32
    // A process may fork while another thread holds the lock.
    pthread_atfork([] { blocks().mutex.lock(); },
                   [] { blocks().mutex.unlock(); },
                   [] { blocks().unlock_in_child(); });
#endif
    return made;
  }();
  return *all;
}

// Also gets what was allocated before, or is small, from oneDNN.
void release(void* data) {
  if (data == nullptr) return;
  c10::profiledCPUMemoryReporter().Delete(data);
  if (!blocks().put(data)) c10::free_cpu(data);
}

class KeepingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes < kSmallest)
      return c10::GetDefaultCPUAllocator()->allocate(bytes);
    void* data = blocks().take(rounded(bytes));
    c10::profiledCPUMemoryReporter().New(data, bytes);
    return {data, data, &release, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t count) const override {
    default_copy_data(to, from, count);
  }
};

}  // namespace

void keep_freed_memory(int64_t most_bytes) {
  static KeepingAllocator allocator;
  blocks().keep_most(static_cast<size_t>(most_bytes));
  if (c10::GetCPUAllocator() != &allocator)
    c10::SetCPUAllocator(&allocator, /*priority=*/1);
}

}  // namespace mmssm
