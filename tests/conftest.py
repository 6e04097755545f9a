"""Test settings that must hold before jax is imported: CPU, one device, nothing cached on disk.

Tests that need several devices start a subprocess with
`XLA_FLAGS=--xla_force_host_platform_device_count=N`: the count is fixed once jax has started, and
forcing it here would make every other test pay for it and hide single-device bugs.
"""

import importlib.metadata
import os
import pathlib

import pytest

# Compile time dominates these tests. LLVM's optimiser more than doubles it and changes no claim;
# the newer emitter of fused loops, the only one of later jaxlibs, triples it again.
flags = "--xla_backend_optimization_level=0"
if importlib.metadata.version("jaxlib").startswith("0.10."):
    flags += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", flags)

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # of commands that tests start


@pytest.fixture(scope="session")
def small_clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """A folder of clips of every kind, made once for all tests that only read them."""
    from tests.small_clips import KINDS, prepare_clips  # imports jax

    root = tmp_path_factory.mktemp("small_clips")
    return {kind: prepare_clips(root / kind, kind) for kind in (*KINDS, "buckets")}
