// Every op's loops on a CPU.
//
// Included once per instruction set, inside a file that has set the compiler's
// target, MMSSM_SIMD (the namespace) and MMSSM_VECTOR_BYTES. Nothing here may
// instantiate a standard template: its code would be shared with, and break,
// lesser processors.
#pragma once

#include "../routed_selective_scan/cpu_bwd.h"
#include "../state_fusion/cpu_bwd.h"
#include "../tree_scan/cpu_bwd.h"
