"""tpdiff_jax: temporal-pyramid video diffusion (TPDiff, arXiv 2503.09566) in JAX.

`open_run` samples from Python; `tpdiff_jax.method` is the method alone; everything else is the
command `python -m tpdiff_jax.main --help`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tpdiff_jax.generation.python_api import open_sampling_run as open_run

__version__ = "0.1.0"
__all__ = ["__version__", "open_run"]


def __getattr__(name: str) -> Any:
    """Import `open_run`, and with it jax, when it is asked for."""
    if name == "open_run":
        return importlib.import_module("tpdiff_jax.generation.python_api").open_sampling_run
    raise AttributeError(f"module 'tpdiff_jax' has no attribute {name!r}")
