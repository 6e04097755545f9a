"""Host memory: give back to the system what compilation has freed.

XLA compiles in many small allocations that the C library keeps for itself afterwards: two of the
three gigabytes that the default run takes on a CPU.
"""

import ctypes


def release_free_memory() -> bool:
    """Return freed memory to the system; True where the C library can (glibc)."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return False
    trim(0)
    return True


def keep_large_blocks() -> bool:
    """Reuse large blocks of memory instead of mapping them anew for every step; True on glibc.

    XLA on CPU asks the C library for a program's scratch space at every call. Above 32 MB that is
    a fresh mapping, which the system zeroes page by page: a quarter of a training step. Call it
    before other threads start; `release_free_memory` still gives back what compilation has freed.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8
    options = ((arena_max, 1), (mmap_threshold, 1 << 30), (trim_threshold, (1 << 31) - 1))
    return all([set_option(*option) for option in options])
