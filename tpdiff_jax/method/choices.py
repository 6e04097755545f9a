"""The one check for options that are a word from a short list; `tpdiff_jax.checks` holds it."""

from tpdiff_jax.checks import check_choice

__all__ = ["check_choice"]
