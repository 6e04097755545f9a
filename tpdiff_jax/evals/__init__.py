"""Evaluators, one file per idea: how generated videos compare with real ones.

Adding a figure: compute it in `moving_digits.figures`, describe it in `moving_digits.METRICS`.
"""

from tpdiff_jax.evals.moving_digits import (
    METRICS,
    Metric,
    evaluate_videos,
    reference_figures,
)

__all__ = ["METRICS", "Metric", "evaluate_videos", "reference_figures"]
