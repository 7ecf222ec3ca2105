// Runs CUDA kernels, compiled as plain C++, on one CPU thread.
//
// Blocks run one after the other. A block's threads are fibers: each runs until
// a barrier (or a shuffle, its warp's barrier), then the next. Their order is
// the test's to choose: threads that communicate without a barrier give
// results that depend on it. A warp runs as far ahead of the others as barriers
// let it. Shared memory starts as NaN (as integers, far too large an index),
// so that reading what nobody wrote shows in the result.
#pragma once

#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

// The dynamic shared memory that the kernels declare.
constexpr size_t kEmulatedSharedBytes = 227 * 1024;  // as a Hopper GPU has
namespace mmssm {
namespace cuda {
extern unsigned char shared_bytes[kEmulatedSharedBytes];
}
}  // namespace mmssm

namespace emulator {

constexpr size_t kSharedBytes = kEmulatedSharedBytes;
constexpr int kWarpSize = 32;
constexpr uint32_t kPoison = 0x7fffffff;

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
inline dim3 threadIdx, blockIdx, blockDim;

enum class Order { kForward, kReverse, kRandom };
struct Settings {
  Order order = Order::kForward;
  bool blocks_reversed = false;
};
inline Settings settings;

class Block {
 public:
  Block(int threads, std::function<void()> body)
      : body_(std::move(body)), fibers_(threads), random_(threads) {
    current_ = this;
    for (int i = 0; i < threads; ++i) start(i);
  }

  void run() {
    while (true) {
      std::vector<int> warps((fibers_.size() + kWarpSize - 1) / kWarpSize);
      std::iota(warps.begin(), warps.end(), 0);
      for (int warp : in_order(warps)) run_warp(warp);
      const auto count = [&](Wait wait) {
        return std::count_if(fibers_.begin(), fibers_.end(),
                             [&](const Fiber& f) { return f.wait == wait; });
      };
      if (count(Wait::kDone) == int64_t(fibers_.size())) return;
      if (count(Wait::kBlock) != int64_t(fibers_.size()))
        throw std::runtime_error(
            "threads wait at a barrier that others of their block skip");
      release(0, fibers_.size());
    }
  }

  static void wait_for_block(int line) { current_->wait(Wait::kBlock, line); }
  static void wait_for_warp(int line) { current_->wait(Wait::kWarp, line); }

  template <typename T>
  static T exchange(T value, int lane_mask) {
    Fiber& self = current_->fibers_[threadIdx.x];
    // Two buffers: a lane may be at the next exchange while others still read.
    self.turn ^= 1;
    memcpy(self.slot[self.turn], &value, sizeof(T));
    current_->wait(Wait::kWarp, 0);
    const unsigned other = threadIdx.x ^ lane_mask;
    memcpy(&value, current_->fibers_.at(other).slot[self.turn], sizeof(T));
    return value;
  }

 private:
  enum class Wait { kNothing, kWarp, kBlock, kDone };
  struct Fiber {
    ucontext_t context;
    Wait wait = Wait::kNothing;
    int line = 0, turn = 0;
    char slot[2][sizeof(double)];
  };
  static constexpr size_t kStack = 64 * 1024;

  void start(int i) {
    static std::vector<std::unique_ptr<char[]>> stacks;
    if (int(stacks.size()) <= i) stacks.emplace_back(new char[kStack]);
    Fiber& f = fibers_[i];
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = stacks[i].get();
    f.context.uc_stack.ss_size = kStack;
    f.context.uc_link = &scheduler_;
    makecontext(&f.context, &Block::enter, 0);
  }

  static void enter() {
    Block& block = *current_;
    const int index = threadIdx.x;
    try {
      block.body_();
    } catch (...) {
      block.error_ = std::current_exception();
    }
    block.fibers_[index].wait = Wait::kDone;
  }

  void wait(Wait wait, int line) {
    Fiber& self = fibers_[threadIdx.x];
    self.wait = wait;
    self.line = line;
    swapcontext(&self.context, &scheduler_);
  }

  // Until all its threads wait for the block, or are done.
  void run_warp(int warp) {
    const size_t first = warp * kWarpSize;
    const size_t last = std::min(first + kWarpSize, fibers_.size());
    std::vector<int> lanes(last - first);
    std::iota(lanes.begin(), lanes.end(), int(first));
    while (true) {
      for (int i : in_order(lanes)) {
        if (fibers_[i].wait != Wait::kNothing) continue;
        threadIdx = dim3(i, 0, 0);
        swapcontext(&scheduler_, &fibers_[i].context);
        if (error_) std::rethrow_exception(error_);
      }
      if (fibers_[first].wait != Wait::kWarp) return;
      release(first, last);
    }
  }

  // Lets threads go on that all wait at one barrier.
  void release(size_t first, size_t last) {
    for (size_t i = first; i < last; ++i) {
      if (fibers_[i].wait != fibers_[first].wait ||
          fibers_[i].line != fibers_[first].line)
        throw std::runtime_error("threads wait at different barriers");
    }
    for (size_t i = first; i < last; ++i) fibers_[i].wait = Wait::kNothing;
  }

  std::vector<int> in_order(std::vector<int> all) {
    if (settings.order == Order::kReverse) std::reverse(all.begin(), all.end());
    if (settings.order == Order::kRandom)
      std::shuffle(all.begin(), all.end(), random_);
    return all;
  }

  static inline Block* current_ = nullptr;
  std::function<void()> body_;
  std::vector<Fiber> fibers_;
  std::mt19937 random_;
  ucontext_t scheduler_;
  std::exception_ptr error_;
};

inline void launch(dim3 grid, dim3 block, size_t shared_bytes,
                   const std::function<void()>& body) {
  if (grid.x == 0 || block.x == 0 || block.x > 1024)
    throw std::runtime_error("a launch of no or too many threads");
  unsigned char* shared = mmssm::cuda::shared_bytes;
  blockDim = block;
  for (unsigned i = 0; i < grid.x; ++i) {
    blockIdx = dim3(settings.blocks_reversed ? grid.x - 1 - i : i, 0, 0);
    const size_t words = kSharedBytes / sizeof(kPoison);
    for (size_t w = 0; w < words; ++w)
      memcpy(shared + w * sizeof(kPoison), &kPoison, sizeof(kPoison));
    Block(block.x, body).run();
    for (size_t at = shared_bytes; at < kSharedBytes; ++at)
      if (shared[at] != reinterpret_cast<const unsigned char*>(
                            &kPoison)[at % sizeof(kPoison)])
        throw std::runtime_error("a write past the shared memory asked for");
  }
}

}  // namespace emulator
