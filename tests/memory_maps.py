"""Compiled programs are dropped before a test process runs out of memory maps.

Every program that XLA compiles for a CPU lies in some nine memory maps, and JAX keeps what it has
compiled. A worker of the whole suite compiles thousands; Linux allows a process 65,530 maps. Past
that, code of programs is loaded in part only, and the process ends in a segmentation fault in
whatever test runs then: often in the unwinder, which reads the tables of that code.
"""

import gc
import pathlib
import sys

MAPS = pathlib.Path("/proc/self/maps")
MAX_MAPS = pathlib.Path("/proc/sys/vm/max_map_count")
SHARE = 0.25
"""Of the maps that a process may have: 16,000 come with some 4 GB; a file adds a few thousand."""


def count_maps() -> int:
    """Return how many memory maps this process has; 0 where the system does not say."""
    return len(MAPS.read_bytes().splitlines()) if MAPS.exists() else 0


def map_limit() -> float:
    """Return the number of maps from which programs are dropped."""
    return SHARE * int(MAX_MAPS.read_text()) if MAX_MAPS.exists() else float("inf")


def drop_programs(limit: float) -> bool:
    """Forget all compiled programs once there are more than `limit` maps; say whether.

    What is needed again comes from the folder of compiled programs.
    """
    if "jax" not in sys.modules or count_maps() <= limit:
        return False
    sys.modules["jax"].clear_caches()
    gc.collect()
    return True
