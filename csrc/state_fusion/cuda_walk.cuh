// What the state fusion's kernels share: a block's place in the work, and the
// strips of tokens that its warps go through.
//
// A thread has one channel, so that neighboring threads read neighboring
// values of a token, and one strip of a row at a time. A block's warps take
// neighboring strips, then the next rows: what a strip reads, others have just
// read or are about to.
//
// Lanes beyond a last block's channels stay, for the shuffles: they read the
// last channel and write nothing.
#pragma once

#include <cuda_runtime.h>

#include <type_traits>

#include "cuda_plan.h"

namespace mmssm {
namespace cuda {

// The same value, which the compiler knows nothing of. It would else compute
// once, and keep, what is the same for all rows, and run out of registers.
template <typename Integer>
__device__ __forceinline__ Integer opaque(Integer value) {
  asm volatile("" : "+r"(value));
  return value;
}

// Rows are counted through the batch; that they, and a row's bytes, fit 32 bits
// is checked before.
struct FusionPlace {
  int channel;              // of the lane
  int first_strip, strips;  // of the panel
  int begin, end;           // rows
  bool active;

  __device__ FusionPlace(const FusionSizes& s, const FusionPlan& plan) {
    channel = block(plan) * kWarp + threadIdx.x % kWarp;
    active = channel < s.channels;
    if (!active) channel = int(s.channels) - 1;
    const int64_t panel = part(plan) % plan.panels;
    const int64_t range = part(plan) / plan.panels;
    first_strip = int(panel * plan.strips / plan.panels);
    strips = int((panel + 1) * plan.strips / plan.panels) - first_strip;
    const int64_t rows = s.batch * s.height;
    begin = int(range * rows / plan.ranges);
    end = int((range + 1) * rows / plan.ranges);
  }
  // Neighboring blocks read neighboring channels of the same tokens.
  __device__ static int block(const FusionPlan& plan) {
    return int(opaque(blockIdx.x) % plan.channel_blocks);
  }
  __device__ static int part(const FusionPlan& plan) {
    return int(opaque(blockIdx.x) / plan.channel_blocks);
  }
};

// The strips of one warp, from the first to the last.
class StripWalk {
 public:
  __device__ StripWalk(const FusionSizes& s, const FusionPlace& at)
      : at_(at), height_(int(s.height)) {
    const int warp = threadIdx.x / kWarp;
    row_ = at.begin + warp / at.strips;
    strip_ = warp % at.strips;
    row_of_map_ = row_ % height_;
  }
  __device__ bool inside() const { return row_ < at_.end; }
  __device__ void next() {
    const int strips = opaque(at_.strips);
    int rows = kFusionWarps / strips;
    strip_ += kFusionWarps % strips;
    if (strip_ >= at_.strips) {
      strip_ -= at_.strips;
      ++rows;
    }
    row_ += rows;
    for (row_of_map_ += rows; row_of_map_ >= height_;) row_of_map_ -= height_;
  }
  // The first column, the row of its map, and the map's first row among all.
  __device__ int column() const {
    return (at_.first_strip + strip_) * kStripTokens;
  }
  __device__ int row() const { return row_of_map_; }
  __device__ int first_row() const { return row_ - row_of_map_; }

 private:
  const FusionPlace& at_;
  int height_;
  int row_, row_of_map_, strip_;
};

// A strip and the map around it, at one channel.
struct Strip {
  int row, column, height, width;
  int first_row;  // the map's among all
  int row_stride, channel;
  // Where columns -kReach to kReach beyond the strip lie in a row, clipped.
  // Without a sign, so that an address is one register away from its row's.
  unsigned columns[kStripTokens + 2 * kReach];

  __device__ Strip(const FusionSizes& s, const StripWalk& walk, int channel)
      : row(walk.row()),
        column(walk.column()),
        height(int(s.height)),
        width(int(s.width)),
        first_row(walk.first_row()),
        row_stride(int(s.width * s.channels)),
        channel(channel) {
#pragma unroll
    for (int j = 0; j < kStripTokens + 2 * kReach; ++j)
      columns[j] =
          unsigned(clip(column + j - kReach, width)) * unsigned(s.channels);
  }
  __device__ bool has(int i) const { return column + i < width; }
  __device__ int64_t token() const {
    return int64_t(first_row + row) * width + column;
  }
  // A row of a map (B, H, W, C), at the channel.
  template <typename Value>
  __device__ Value* row_of(Value* values, int number) const {
    return values + (int64_t(first_row + number) * row_stride + channel);
  }
  template <typename Value>
  __device__ Value* own_row_of(Value* values) const {
    return row_of(values, row);
  }
  // In such a row, the value at column j of the strip.
  template <typename Value>
  __device__ Value& in(Value* row, int j) const {
    typedef std::conditional_t<std::is_const_v<Value>, const char, char> Byte;
    const unsigned bytes =
        opaque(columns[j + kReach] * unsigned(sizeof(Value)));
    return *reinterpret_cast<Value*>(reinterpret_cast<Byte*>(row) + bytes);
  }
};

// Calls use(tap, i, value) for all that the strip's taps read: values of rows
// and columns beyond the border are those at the border. One row after the
// other: loads of all rows at once would take more registers than there are.
template <typename T, typename Token, typename Use>
__device__ void visit_clipped(const Strip& strip, const Token* values,
                              const Use& use) {
  const auto visit_row = [&](auto number, int step, int first_tap) {
    constexpr int kDilation = decltype(number)::value;
    __syncwarp();
    const Token* from =
        strip.row_of(values, clip(strip.row + step, strip.height));
    visit_taps<kDilation>(
        [&](int j) { return T(strip.in(from, j)); },
        [&](int tap, int i, T value) { use(first_tap + tap, i, value); });
  };
  visit_row(std::integral_constant<int, 1>(), -1, 0);
  visit_row(std::integral_constant<int, 3>(), -3, 3);
  visit_row(std::integral_constant<int, 5>(), -5, 6);
  __syncwarp();
  const Token* own = strip.own_row_of(values);
  visit_middle_taps([&](int j) { return T(strip.in(own, j)); }, use);
  visit_row(std::integral_constant<int, 1>(), 1, 16);
  visit_row(std::integral_constant<int, 3>(), 3, 19);
  visit_row(std::integral_constant<int, 5>(), 5, 22);
}

template <typename T>
__device__ void load_taps(const T* from, const FusionSizes& s, int64_t channel,
                          T (&taps)[kTaps]) {
#pragma unroll
  for (int tap = 0; tap < kTaps; ++tap)
    taps[tap] = from[tap * s.channels + channel];
}

}  // namespace cuda
}  // namespace mmssm
