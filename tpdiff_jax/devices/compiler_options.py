"""What single programs ask of XLA."""

import os

import jaxlib
from jax.sharding import Mesh

_LEVEL = "xla_backend_optimization_level"
_EMITTERS = "xla_cpu_use_fusion_emitters"  # the newer compiler of fused loops
_HAVE_A_CHOICE = ("0.10.",)  # releases of jaxlib with an older one as well


def quick_options(mesh: Mesh) -> dict[str, int | bool] | None:
    """Return options under which a program compiles sooner and runs as fast; None for none.

    On a CPU the time of a network is spent in matrix products, which LLVM does not compile: at its
    first level of optimisation the sampler of configs/flow.py compiles in 0.6 of the time, and a
    video takes 0.98 of it; with the older compiler of fused loops in 0.6 of that once more, and a
    video as long (one core, jaxlib 0.10.2).

    Args:
        mesh: the devices that will run the program. `XLA_FLAGS` that name an option win.
    """
    if mesh.devices.flat[0].platform != "cpu":
        return None
    options: dict[str, int | bool] = {_LEVEL: 1}
    if jaxlib.__version__.startswith(_HAVE_A_CHOICE):
        options[_EMITTERS] = False
    given = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in options.items() if name not in given} or None
