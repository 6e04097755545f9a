"""Cores that XLA may use: on CPUs the bits of a training step depend on how many they are.

XLA divides weight gradients over tokens and 3-D convolutions among its threads and adds up their
parts, so that another number of threads adds in another order. Losses of one step keep their bits.
"""

import os

import jax


def usable_cores() -> int | None:
    """Return how many cores this process may use; None where no CPU computes the steps."""
    if jax.default_backend() != "cpu":
        return None
    if (told := os.environ.get("NPROC", "")).isdecimal() and int(told):  # which XLA asks first
        return int(told)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def describe_other_cores(saved: int | None) -> str | None:
    """Return what another number of cores means for the bits of a run; None where it is the same.

    Args:
        saved: what a checkpoint recorded; None where nothing is known.
    """
    now = usable_cores()
    if saved is None or now is None or saved == now:
        return None
    return (
        f"was computed with {saved} usable CPU cores, now there are {now}: what follows equals an "
        "undisturbed run up to rounding, not bit for bit (taskset restores the number)"
    )
