"""What single programs ask of XLA."""

import os

from jax.sharding import Mesh

_LEVEL = "xla_backend_optimization_level"


def quick_options(mesh: Mesh) -> dict[str, int] | None:
    """Return options under which a program compiles sooner and runs as fast; None for none.

    On a CPU the time of a network is spent in matrix products, which LLVM does not compile: at its
    first level of optimisation the sampler of configs/flow.py compiles in 0.6 of the time, and a
    video takes 0.98 of it (one core, jaxlib 0.10.2).

    Args:
        mesh: the devices that will run the program. `XLA_FLAGS` that name a level win.
    """
    is_cpu = mesh.devices.flat[0].platform == "cpu"
    return {_LEVEL: 1} if is_cpu and _LEVEL not in os.environ.get("XLA_FLAGS", "") else None
