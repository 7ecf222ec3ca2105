"""How the C library handles freed memory."""

import ctypes
import platform

# mallopt's numbers in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Keep the memory of freed tensors for the next ones, in this process.

    glibc gives blocks over 32 MiB back at once and maps new ones page by
    page, which takes a quarter of a forward pass at 2048 pixels. For programs
    that run a model on a CPU; a library must leave this to them.

    Returns:
        bool: Whether the C library took the setting; only glibc has it.
    """
    if platform.libc_ver()[0] != 'glibc':
        return False
    library = ctypes.CDLL(None)
    return bool(
        library.mallopt(_M_MMAP_MAX, 0)
        and library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    )
