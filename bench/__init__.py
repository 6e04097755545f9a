"""Benchmarks: what the method costs, as ratios from one interleaved run."""
