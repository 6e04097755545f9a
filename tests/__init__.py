"""Tests; folders mirror tpdiff_jax/."""
