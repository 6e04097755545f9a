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
