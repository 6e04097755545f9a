"""What a run ran on and with: devices, and versions of the packages that decide its numbers."""

import contextlib
import importlib.metadata
import os
import platform
from typing import Any

import jax

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "scipy")


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide the numbers, where installed.

    What loads clips need not be there where a network alone is timed.
    """
    out = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            out[name] = importlib.metadata.version(name)
    return out


def device_facts() -> dict[str, Any]:
    """Return what the run ran on."""
    devices = jax.devices()
    return {
        "platform": devices[0].platform,
        "kind": devices[0].device_kind,
        "num_devices": len(devices),
        "num_processes": jax.process_count(),
        "cpu_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "machine": platform.machine(),
    }
