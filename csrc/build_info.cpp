// What the extension was built for, as text in the file itself: it can be read
// where the file cannot be loaded (mmssm/ops/native.py does).
#include <torch/version.h>

#ifdef MMSSM_CUDA_ARCHITECTURES
#include <cuda_runtime_api.h>
#else
#define MMSSM_CUDA_ARCHITECTURES
#define CUDART_VERSION 0
#endif

#define MMSSM_TEXT_OF(...) #__VA_ARGS__
#define MMSSM_TEXT(...) MMSSM_TEXT_OF(__VA_ARGS__)

#if defined(__clang__)
#define MMSSM_COMPILER "Clang " __clang_version__
#elif defined(__GNUC__)
#define MMSSM_COMPILER "GCC " __VERSION__
#else
#define MMSSM_COMPILER "MSVC " MMSSM_TEXT(_MSC_VER)
#endif

#if defined(__GNUC__)
#define MMSSM_KEPT __attribute__((used, visibility("default")))
#else
#define MMSSM_KEPT __declspec(dllexport)
#endif

extern "C" MMSSM_KEPT const char mmssm_build_info[] =
    "mmssm-build{\"torch\": \"" TORCH_VERSION
    "\", \"cuda\": " MMSSM_TEXT(CUDART_VERSION) ", \"architectures\": \""
    MMSSM_TEXT(MMSSM_CUDA_ARCHITECTURES) "\", \"compiler\": \""
    MMSSM_COMPILER "\"}";
