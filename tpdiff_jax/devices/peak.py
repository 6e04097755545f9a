"""The machine's measured matrix-product rate: what a training step's FLOP/s are compared with."""

import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp


def measure_matmul_flops(
    dtype: str = "float32",
    size: int | None = None,
    repeats: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return the best rate of a square matrix product on one device, FLOP/s.

    Args:
        dtype: type of the operands.
        size: edge of the matrices; by default what keeps the device busy for some milliseconds.
        repeats: timed products; the fastest counts.
        clock: counts seconds.
    """
    if size is None:
        size = 1024 if jax.default_backend() == "cpu" else 8192
    a = jnp.ones((size, size), dtype)
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    best = float("inf")
    for _ in range(repeats):
        start = clock()
        product(a).block_until_ready()
        best = min(best, clock() - start)
    return 2.0 * size**3 / best


@functools.cache
def peak_matmul_flops(dtype: str) -> float:
    """Return `measure_matmul_flops` of a type, measured once a process.

    Args:
        dtype: type of the operands.
    """
    return measure_matmul_flops(dtype)
