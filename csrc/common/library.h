// How ops are registered.
//
// The library that the ops are registered in, and the key of CUDA kernels.
// tests/cuda_emulator sets other ones: it compiles the CUDA sources as C++, as
// ops on CPU tensors.
#pragma once

#ifndef MMSSM_LIBRARY
#define MMSSM_LIBRARY mmssm
#define MMSSM_CUDA_KEY CUDA
#endif

namespace mmssm {

// The types of the arguments that an op's schemas share.
template <typename... T>
struct Types {};

}  // namespace mmssm
