"""FLOPs that training steps execute, counted on the traced programs instead of modelled.

All matrix products of a step: network forward and backward, optimizer, alignment. The moving
average adds 3 for each parameter. Recomputation must not be credited: count an experiment without
rematerialisation. The optimizer's share matters in small runs: Muon's products do not shrink with
the frames of a stage.
"""

import itertools
from typing import NamedTuple

import jax
import numpy as np

from experiments.curves import Curve
from tpdiff_jax.build import Experiment
from tpdiff_jax.initial_state import abstract_train_state
from tpdiff_jax.planning.program_flops import matmul_flops
from tpdiff_jax.stage_schedule import stage_of_step
from tpdiff_jax.step_programs import trace_step

_AVERAGE_FLOPS = 3.0  # of a parameter: decay * average + (1 - decay) * parameter


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
        network=tuple(experiment.train_flops(i) for i in stages),
        total=tuple(_executed_flops(experiment, i) for i in stages),
        stage_probs=experiment.train.stage_probs,
    )


def _executed_flops(experiment: Experiment, stage_index: int) -> float:
    state = abstract_train_state(experiment)
    key = jax.eval_shape(lambda: jax.random.key(0))
    traced = trace_step(experiment, stage_index, state, key)
    num_params = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return matmul_flops(traced.jaxpr.jaxpr) + _AVERAGE_FLOPS * num_params


def with_counted_flops(curve: Curve, cost: StepCost) -> Curve:
    """Return the curve with executed FLOPs on its axis `flops`.

    Args:
        curve: of a run whose `train.seed` is the curve's.
        cost: of its steps.
    """
    steps = range(max(curve.steps, default=0))
    flops = (cost.total[stage_of_step(curve.seed, step, cost.stage_probs)] for step in steps)
    spent = [0.0, *itertools.accumulate(flops)]
    counted = np.asarray([spent[step] for step in curve.steps], np.float64)
    return curve._replace(x={**curve.x, "flops": counted})
