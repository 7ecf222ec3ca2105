// Reuse of the memory of freed tensors on a CPU.
#pragma once

#include <cstdint>

namespace mmssm {

// From here on, tensors of 1 MiB and more take the memory of freed ones of
// about their size. Up to `most_bytes` of freed memory are kept.
void keep_freed_memory(int64_t most_bytes);

}  // namespace mmssm
