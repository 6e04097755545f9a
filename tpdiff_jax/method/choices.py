"""The checks that several options share; `tpdiff_jax.checks` holds them."""

from tpdiff_jax.checks import as_tuple, check_choice, whole_number

__all__ = ["as_tuple", "check_choice", "whole_number"]
