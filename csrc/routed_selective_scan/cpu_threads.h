// How the routed scan and the tree scan share their work out over threads.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "../common/scratch.h"
#include "cpu_kernels.h"

namespace mmssm {

// How the work of one call is shared out: the batch into `batch_parts`, channel
// blocks into `parts`, and, if that is too little for all threads,
// routes into `shares`. As few tasks as keep every thread busy: a task with all
// of a token's channels reads each row of memory once, one with several items
// reads parameters once.
//
// Shares of one batch part and part add to the same tokens. With enough batch
// parts and parts for all threads they take turns on one map; else each share
// has a map of its own, and the maps are added up.
struct Split {
  int64_t batch, blocks, routes, batch_parts = 1, parts = 1, shares = 1,
                                 maps = 1;

  explicit Split(const ScanSizes& s)
      : batch(s.batch), blocks(channel_blocks(s)), routes(s.routes) {
    const int64_t threads = at::get_num_threads();
    while (!balanced(threads) && batch_parts < batch) ++batch_parts;
    while (!balanced(threads) && parts < blocks) ++parts;
    if (balanced(threads) || places() == 0) return;
    if (places() > threads) {
      shares = std::min<int64_t>(routes, 2);
    } else {
      shares = std::min(routes, (threads + places() - 1) / places());
      maps = shares;
    }
    shares = std::max<int64_t>(shares, 1);
    maps = std::max<int64_t>(maps, 1);
  }
  bool balanced(int64_t threads) const {
    return (tasks() % threads == 0 && batch % batch_parts == 0 &&
            blocks % parts == 0) ||
           tasks() >= 4 * threads;
  }
  int64_t places() const { return batch_parts * parts; }
  int64_t tasks() const { return places() * shares; }
  // As much work as any task has, for its scratch memory.
  ScanWork largest_work() const {
    return {0, batch, 0, (blocks + parts - 1) / parts, 0, routes};
  }
  int64_t batch_part_of(int64_t task) const {
    return task / parts % batch_parts;
  }
  int64_t part_of(int64_t task) const { return task % parts; }
  int64_t map_of(int64_t task) const { return task / places() % maps; }
  ScanWork work(int64_t task) const {
    const int64_t item = batch_part_of(task), part = part_of(task),
                  share = task / places();
    return {item * batch / batch_parts, (item + 1) * batch / batch_parts,
            part * blocks / parts,      (part + 1) * blocks / parts,
            share * routes / shares,    (share + 1) * routes / shares};
  }
};

// Calls run(task, scratch) for every task on all threads. Tasks that add to the
// same tokens of the same map run one after another, in order, so that the sum
// is the same every time.
template <typename T, typename Run>
void run_tasks(const Split& split, int64_t scratch_size, const Run& run) {
  const int64_t lines = split.places() * split.maps;
  std::atomic<int64_t> next{0};
  std::vector<std::atomic<int64_t>> done(lines);
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t, int64_t) {
    const Scratch<T> scratch(scratch_size);
    for (int64_t i; (i = next++) < split.tasks();) {
      std::atomic<int64_t>& before = done[i % lines];
      // The task before it is under way on another thread, if not done.
      while (before.load(std::memory_order_acquire) < i / lines)
        std::this_thread::yield();
      run(i, scratch.data());
      before.fetch_add(1, std::memory_order_release);
    }
  });
}

}  // namespace mmssm
