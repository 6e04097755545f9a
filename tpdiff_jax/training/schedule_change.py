"""Says when a run that goes on does so at another learning rate than it would have."""

import math
from typing import Any

from absl import logging

from tpdiff_jax.experiment.build import Experiment, build_schedule, schedule_length

_SAME = 1e-6  # relative: rates are float32


def is_same_rate(old: float, now: float, peak: float) -> bool:
    """Whether two learning rates of a step are those of one schedule.

    Args:
        old: what the step had, or would have had.
        now: what the schedule says.
        peak: `optim.learning_rate`.
    """
    return math.isclose(old, now, rel_tol=_SAME, abs_tol=_SAME * peak)


def announce_schedule(experiment: Experiment, saved: Any, num_updates: int) -> None:
    """Log both rates where the schedule is no longer that of the saved config.

    Args:
        experiment: the run as it goes on.
        saved: the config that it had before; None for a new run.
        num_updates: updates that it has made.
    """
    length, warned = schedule_length(experiment.config), "the learning rate is 0 from then on"
    if experiment.config.optim.schedule == "cosine" and length < experiment.train.num_steps:
        logging.warning(
            "optim.schedule ends after %d of train.num_steps=%d steps: %s",
            *(length, experiment.train.num_steps, warned),
        )
    if saved is None or num_updates == 0:
        return
    schedule, new = build_schedule(saved), experiment.task.schedule
    last, old, now = (
        float(rate) for rate in (schedule(num_updates - 1), schedule(num_updates), new(num_updates))
    )
    if is_same_rate(old, now, experiment.config.optim.learning_rate):
        return
    before = schedule_length(saved)
    logging.warning(
        "the learning rate goes from %.3g to %.3g: its schedule was over %d steps (and would go on "
        "with %.3g) and is over %d now; --config.optim.schedule_steps=%d keeps the old one",
        *(last, now, before, old, length, before),
    )
