"""What `bench.cost` times: compiled training steps, noise draws, network calls and samplers."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments.grid.grids import VANILLA
from experiments.grid.overrides import merge_overrides, read_config
from tpdiff_jax import method
from tpdiff_jax.experiment.build import Experiment, build_experiment
from tpdiff_jax.generation.sampler import Sampler
from tpdiff_jax.training.batches import iterate_batches
from tpdiff_jax.training.initial_state import abstract_train_state, make_state
from tpdiff_jax.training.step_programs import compile_steps
from tpdiff_jax.types import Array

Case = Callable[[], Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Twins:
    """The same config with its pyramid and as vanilla diffusion."""

    pyramid: Experiment
    vanilla: Experiment

    def by_name(self) -> dict[str, Experiment]:
        """Return both under their names."""
        return {"pyramid": self.pyramid, "vanilla": self.vanilla}


def build_twins(
    config_file: str, overrides: Mapping[str, str], frame_shape: tuple[int, ...] | None = None
) -> Twins:
    """Build both experiments.

    Args:
        config_file: of the pyramid.
        overrides: fields of both.
        frame_shape: (f, h, w, c) of clips where no data set is at hand; None reads the config's.

    Raises:
        ValueError: for an invalid config, or one whose stages take different batches.
    """
    vanilla = read_config(config_file, merge_overrides(overrides, VANILLA))
    twins = Twins(
        pyramid=build_experiment(read_config(config_file, overrides), frame_shape=frame_shape),
        vanilla=build_experiment(vanilla, frame_shape=frame_shape),
    )
    if len(set(twins.pyramid.batch_sizes)) > 1:
        raise ValueError("train.batch_per_stage='tokens': the cost of equal batches is compared")
    return twins


def with_alignment(experiment: Experiment, mode: str) -> Experiment:
    """Return the experiment with another alignment mode."""
    alignment = dataclasses.replace(experiment.task.alignment, mode=mode)
    return dataclasses.replace(experiment, task=experiment.task._replace(alignment=alignment))


def step_name(twin: str, mode: str, stage_index: int) -> str:
    """Return the name of a training step's case."""
    return f"step/{twin}/{mode}/{stage_index}"


def noise_name(mode: str, stage_index: int) -> str:
    """Return the name of a noise draw's case."""
    return f"noise/{mode}/{stage_index}"


def call_name(twin: str, stage_index: int) -> str:
    """Return the name of a network call's case."""
    return f"call/{twin}/{stage_index}"


def sample_name(twin: str) -> str:
    """Return the name of a sampler's case."""
    return f"sample/{twin}"


def step_cases(
    twins: Twins, modes: Sequence[str], batch: dict[str, Any] | None = None
) -> dict[str, Case]:
    """Return the training steps: every stage and mode, and the vanilla twin's.

    One state of each twin runs through all of its steps: the mode changes no shape, and the twins
    differ in what the guard remembers of each stage.

    Args:
        twins: both.
        modes: alignments beside the config's own.
        batch: what all steps train on; None takes the data set's first.
    """
    key = jax.random.key(twins.pyramid.train.seed)
    held = {twin: make_state(experiment, key) for twin, experiment in twins.by_name().items()}
    if batch is None:
        batch = next(iter(iterate_batches(twins.pyramid, 0)))
    own_mode = twins.pyramid.task.alignment.mode
    cases: dict[str, Case] = {}

    def add(twin: str, mode: str, experiment: Experiment) -> None:
        functions = compile_steps(experiment, abstract_train_state(experiment), key)
        for stage_index, function in enumerate(functions):

            def call(function: Any = function) -> Any:
                held[twin], metrics = function(held[twin], batch, key)
                return metrics

            cases[step_name(twin, mode, stage_index)] = call

    for mode in dict.fromkeys((own_mode, *modes)):
        add("pyramid", mode, with_alignment(twins.pyramid, mode))
    add("vanilla", own_mode, twins.vanilla)
    return cases


def noise_cases(twins: Twins, modes: Sequence[str]) -> dict[str, Case]:
    """Return the noise draws of the pyramid alone, for every stage and mode."""
    experiment = twins.pyramid
    video = next(iter(iterate_batches(experiment, 0)))["video"]
    keys = jax.random.split(jax.random.key(0), experiment.train.batch_size)
    cases: dict[str, Case] = {}
    for mode in modes:
        spec = with_alignment(experiment, mode).task.alignment
        for stage_index in range(experiment.pyramid.num_stages):
            draw = functools.partial(
                method.aligned_noise, experiment.pyramid, stage_index, spec=spec
            )
            cases[noise_name(mode, stage_index)] = functools.partial(jax.jit(draw), video, keys)
    return cases


def sampling_cases(twins: Twins) -> dict[str, Case]:
    """Return whole samplers, and single network calls of every stage as samplers make them."""
    cases: dict[str, Case] = {}
    for twin, experiment in twins.by_name().items():
        dataset, batch_size = experiment.dataset, experiment.sample.batch_size
        params = make_state(experiment, jax.random.key(experiment.train.seed)).params
        cond = dataset.requests(batch_size).cond
        cases[sample_name(twin)] = functools.partial(
            Sampler(experiment), params, cond, seed=0, batch_size=batch_size
        )
        for stage_index in range(experiment.pyramid.num_stages):
            x_t = _call_inputs(experiment, stage_index)
            call = jax.jit(functools.partial(network_call, experiment, stage_index))
            cases[call_name(twin, stage_index)] = functools.partial(
                call, params, x_t, jax.tree.map(jnp.asarray, cond)
            )
    return cases


def network_call(
    experiment: Experiment, stage_index: int, params: Any, x_t: Array, cond: Any
) -> Array:
    """One call of a stage's network with the sampler's guidance, [b, f_i, h, w, c]."""
    stage = experiment.pyramid.stages[stage_index]
    predict = method.guided(
        functools.partial(experiment.network.apply, params),
        experiment.sampler.stage_scales[stage_index],
        experiment.task.null_cond(cond),
    )
    t = jnp.full(x_t.shape[:1], 500.0, jnp.float32)
    return predict(x_t, t, jax.tree.map(jnp.asarray, stage.positions), stage.strides, cond)


def call_flops(experiment: Experiment, stage_index: int) -> float:
    """Return the FLOPs of `network_call`, twice the network's where guidance is on."""
    stage = experiment.pyramid.stages[stage_index]
    twice = 1 if experiment.sampler.stage_scales[stage_index] == 1.0 else 2
    return twice * experiment.network.flops(stage.shape) * experiment.sample.batch_size


def _call_inputs(experiment: Experiment, stage_index: int) -> Array:
    stage, channels = experiment.pyramid.stages[stage_index], experiment.clip_facts.frame_shape[-1]
    shape = (experiment.sample.batch_size, *stage.shape, channels)
    return jax.random.normal(jax.random.key(stage_index), shape, jnp.float32)
