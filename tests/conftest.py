"""Test settings that must hold before jax is imported: CPU, one device, nothing cached on disk.

Tests that need several devices start a subprocess with
`XLA_FLAGS=--xla_force_host_platform_device_count=N`: the count is fixed once jax has started, and
forcing it here would make every other test pay for it and hide single-device bugs.
"""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
