"""Evaluators, one file per idea: how generated videos compare with real ones.

`measures` says what an evaluation is. Adding a figure of Moving Digits: compute it in
`moving_digits.figures`, describe it in `moving_digits.DIGIT_METRICS`. Adding one of other clips:
both in `clip_measures.py` of the package.
"""

from tpdiff_jax.evals.measures import Evaluation, Measures, Metric
from tpdiff_jax.evals.moving_digits import (
    DIGIT_METRICS,
    evaluate_videos,
    reference_figures,
)

__all__ = [
    "DIGIT_METRICS",
    "Evaluation",
    "Measures",
    "Metric",
    "evaluate_videos",
    "reference_figures",
]
