"""tpdiff_jax: temporal-pyramid video diffusion (TPDiff, arXiv 2503.09566) in JAX."""

__version__ = "0.1.0"
