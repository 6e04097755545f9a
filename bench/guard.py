"""What the guard against bad steps costs: training steps with it and without, in turn.

    python -m bench.guard --config=configs/flow.py

Any config and any `--config.GROUP.FIELD=VALUE`, on any device. Prints, for each stage, how much
longer a guarded step takes. Exit codes: 0 done; 2 bad input.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bench.timing import Quartiles, quartiles, time_interleaved
from experiments.command_line import command_parser
from experiments.overrides import parse_overrides, read_config
from tpdiff_jax.build import Experiment, build_experiment
from tpdiff_jax.initial_state import make_state, run_keys
from tpdiff_jax.step_programs import abstract_batch
from tpdiff_jax.train_step import TrainState, TrainTask, apply_gradients, loss_and_grads, train_step
from tpdiff_jax.types import Array, PRNGKey

EXIT_BAD_INPUT = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Time and print; return the exit code."""
    options, rest = _parser().parse_known_args(argv)
    try:
        experiment = build_experiment(read_config(options.config, parse_overrides(rest)))
    except ValueError as error:
        print(f"guard: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    for stage_index in options.stages or range(experiment.pyramid.num_stages):
        cost = measure(experiment, stage_index, options.rounds, options.min_milliseconds / 1e3)
        low, median, high = (f"{100 * x:+.2f}" for x in (cost.low, cost.median, cost.high))
        print(f"stage {stage_index}: guard {median} % of a step [{low}, {high}]", flush=True)
    return 0


def measure(experiment: Experiment, stage_index: int, rounds: int, min_seconds: float) -> Quartiles:
    """Return how much longer a guarded step takes, as a share of one without a guard."""
    cases = {
        "guarded": _case(experiment, stage_index, train_step),
        "unguarded": _case(experiment, stage_index, unguarded_step),
    }
    seconds = time_interleaved(cases, rounds=rounds, min_seconds=min_seconds)
    return quartiles(seconds["guarded"] / seconds["unguarded"] - 1.0)


def unguarded_step(
    task: TrainTask, stage_index: int, state: TrainState, batch: dict[str, Any], key: PRNGKey
) -> tuple[TrainState, dict[str, Array]]:
    """`train_step` as it would be without its guard."""
    step_key = jax.random.fold_in(key, state.step)
    (loss, metrics), grads = loss_and_grads(task, stage_index, state.params, batch, step_key)
    metrics |= {"loss": loss, "grad_norm": optax.tree.norm(grads)}
    return apply_gradients(task, state, grads)._replace(step=state.step + 1), metrics


def _case(
    experiment: Experiment, stage_index: int, step: Callable[..., Any]
) -> Callable[[], dict[str, Array]]:
    key_init, key = run_keys(experiment.train.seed)
    batch = jax.tree.map(
        lambda a: jax.device_put(jnp.zeros(a.shape, a.dtype), a.sharding),
        abstract_batch(experiment, stage_index),
    )
    function = jax.jit(functools.partial(step, experiment.task, stage_index), donate_argnums=0)
    held = [make_state(experiment, key_init)]

    def call() -> dict[str, Array]:
        held[0], metrics = function(held[0], batch, key)
        return metrics

    return call


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("bench.guard", __doc__)
    parser.add_argument("--config", default="configs/flow.py", help="config file")
    parser.add_argument("--stages", type=int, nargs="*", help="stages to time; default all")
    parser.add_argument("--rounds", type=int, default=21, help="timings of each case")
    parser.add_argument(
        "--min_milliseconds", type=float, default=20.0, help="shorter work repeats until this long"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
