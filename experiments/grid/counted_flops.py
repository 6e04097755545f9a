"""FLOPs that a run has executed, over its curve: network, alignment, optimizer and average.

The optimizer's share matters in small runs: Muon's products do not shrink with the frames of a
stage. Which stage a step trains is a pure function of the seed, so that nothing is estimated.
"""

import itertools
from typing import NamedTuple

import numpy as np

from experiments.analysis.curves import NETWORK, Curve
from tpdiff_jax.data.step_schedule import stage_of_step
from tpdiff_jax.experiment.build import Experiment
from tpdiff_jax.training.cost import step_flops


class StepCost(NamedTuple):
    """FLOPs of a training step of each stage.

    Attributes:
        network: of the network's FLOP model, forward and backward.
        total: executed, with optimizer, alignment and moving average.
        stage_probs: share of the steps that each stage gets.
    """

    network: tuple[float, ...]
    total: tuple[float, ...]
    stage_probs: tuple[float, ...]


def count_step_cost(experiment: Experiment) -> StepCost:
    """Return the FLOPs of an experiment's steps; nothing is compiled."""
    stages = range(experiment.pyramid.num_stages)
    return StepCost(
        network=tuple(experiment.programs[i].train_flops for i in stages),
        total=tuple(sum(flops) for flops in step_flops(experiment)),
        stage_probs=experiment.train.stage_probs,
    )


def with_counted_flops(curve: Curve, cost: StepCost) -> Curve:
    """Return the curve with executed FLOPs on its axis `flops`, and the network's on `network`.

    Args:
        curve: of a run whose `train.seed` is the curve's.
        cost: of its steps.
    """
    steps = range(max(curve.steps, default=0))
    stages = [stage_of_step(curve.seed, step, cost.stage_probs) for step in steps]
    counted = {}
    for axis, flops in ((NETWORK, cost.network), ("flops", cost.total)):
        spent = [0.0, *itertools.accumulate(flops[stage] for stage in stages)]
        counted[axis] = np.asarray([spent[step] for step in curve.steps], np.float64)
    return curve._replace(x={**curve.x, **counted})
