"""What a training step costs, counted from the traced programs.

    train_flops     the network alone: forward, and what training needs backward (see clip_flops)
    counted_flops   that, the pairing of noise, the optimizer's matrix products and the average

Neither credits recomputation. Equal FLOPs of experiments and the share of the peak mean the first;
the second differs where the optimizer multiplies matrices, which does not shrink with the frames.
"""

from typing import NamedTuple

import jax

from tpdiff_jax import method
from tpdiff_jax.experiment.experiment import Experiment, Program
from tpdiff_jax.planning.program_flops import matmul_flops
from tpdiff_jax.run_log.cost_meter import StepCost

AVERAGE_FLOPS = 3.0  # of a parameter: decay * average + (1 - decay) * parameter


class StepFlops(NamedTuple):
    """FLOPs of one training step.

    Attributes:
        network: `Experiment.train_flops`.
        alignment: matrix products that pair noise with clips, and lift it to the stage.
        update: matrix products of the optimizer, and the moving average.
    """

    network: float
    alignment: float
    update: float


def step_flops(experiment: Experiment) -> tuple[StepFlops, ...]:
    """Return the FLOPs of each of `experiment.programs`; traced, nothing is compiled."""
    update = _update_flops(experiment)  # whatever the stage
    return tuple(
        StepFlops(program.train_flops, _alignment_flops(program), update)
        for program in experiment.programs
    )


def step_costs(experiment: Experiment) -> tuple[StepCost, ...]:
    """Return what a step of each of `experiment.programs` takes; nothing is compiled."""
    return tuple(
        StepCost(
            clips=program.batch_size,
            frames=program.batch_size * program.stage_shape[0],
            train_flops=flops.network,
            counted_flops=sum(flops),
        )
        for program, flops in zip(experiment.programs, step_flops(experiment), strict=True)
    )


def _alignment_flops(program: Program) -> float:
    task, stage_index, batch_size = program.task, program.stage, program.batch_size
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch_size))
    shape = (batch_size, *program.clips.video_shape)
    noise = jax.make_jaxpr(
        lambda x_0, keys: method.aligned_noise(task.pyramid, stage_index, x_0, keys, task.alignment)
    )(jax.ShapeDtypeStruct(shape, "float32"), keys)
    return matmul_flops(noise.jaxpr)


def _update_flops(experiment: Experiment) -> float:
    optimizer, adaptation = experiment.task.optimizer, experiment.task.adaptation
    params = jax.eval_shape(
        lambda key: adaptation.split(experiment.network.init(key), key)[0], jax.random.key(0)
    )
    opt_state = jax.eval_shape(optimizer.init, params)
    update = jax.make_jaxpr(optimizer.update)(params, opt_state, params)
    num_params = sum(leaf.size for leaf in jax.tree.leaves(params))
    return matmul_flops(update.jaxpr) + AVERAGE_FLOPS * num_params
