"""Host memory: give back what compilation has freed, and keep what every step asks for again.

XLA compiles in many small allocations that the C library keeps for itself afterwards: two of the
three gigabytes that the default run takes on a CPU.
"""

import ctypes

_ARENA_MAX, _MMAP_THRESHOLD, _TRIM_THRESHOLD = -8, -3, -1  # malloc.h
_LARGE_BLOCKS = ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, 1 << 30), (_TRIM_THRESHOLD, (1 << 31) - 1))


def release_free_memory() -> bool:
    """Return freed memory to the system; True where the C library can (glibc)."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return False
    trim(0)
    return True


def reuse_large_blocks() -> bool:
    """Let the C library hand out large freed blocks again; True where it can (glibc).

    XLA takes a step's scratch space on a CPU in one block at every call. Above a threshold glibc
    maps such a block anew each time, and the system zeroes it page by page: a fifth of a step.
    A thread's own arena cannot hold large blocks, hence one arena. To be called before threads are
    started; memory is still given back by `release_free_memory`.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return all([set_option(option, value) for option, value in _LARGE_BLOCKS])
