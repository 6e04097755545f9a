"""What a run leaves that stopped after too many bad steps in a row: `bad_steps/STEP/`.

`bad_steps.json` holds everything that those steps were functions of, and `batch_P.npz` the last
one's batch as it lay on process P: enough to take the step again elsewhere.
"""

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from absl import logging

from tpdiff_jax import method
from tpdiff_jax.data.step_schedule import turn_of_step
from tpdiff_jax.devices.facts import device_facts, package_versions
from tpdiff_jax.devices.origin import run_origin
from tpdiff_jax.experiment.build import Experiment
from tpdiff_jax.files.durable import writing
from tpdiff_jax.files.json_files import write_json
from tpdiff_jax.optim.guard import BadStep, TooManyBadSteps
from tpdiff_jax.train_step import split_step_key
from tpdiff_jax.types import PRNGKey

FOLDER = "bad_steps"


@contextlib.contextmanager
def bundle_on_stop(
    experiment: Experiment,
    workdir: pathlib.Path,
    key: PRNGKey,
    batch_of_step: Callable[[int], Any],
) -> Iterator[None]:
    """Write the bundle when too many bad steps stop what is inside; the exception goes on.

    Args:
        experiment: the run.
        workdir: its folder.
        key: the key of its steps.
        batch_of_step: the batch of a step, counted from 0, as arrays on the mesh.
    """
    try:
        yield
    except TooManyBadSteps as stop:
        last = stop.steps[-1]
        folder = workdir / FOLDER / str(last.step + 1)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            process = jax.process_index()
            arrays = local_arrays(batch_of_step(last.step))
            with (
                writing(folder / f"batch_{process}.npz") as temporary,
                temporary.open("wb") as file,
            ):
                np.savez(file, **arrays)  # type: ignore[arg-type]
            if process == 0:
                write_json(folder / "bad_steps.json", describe_stop(experiment, key, stop))
            logging.error("what is needed to repeat them: %s", folder)
        except OSError as error:  # a full disk must not hide why the run stopped
            logging.error("could not write %s: %s", folder, error)
        raise


def describe_stop(experiment: Experiment, key: PRNGKey, stop: TooManyBadSteps) -> dict[str, Any]:
    """Return the content of bad_steps.json.

    Args:
        experiment: of the run.
        key: of all its steps.
        stop: the steps that were bad, numbered from 0 as completed steps before them.

    Returns:
        Fields as JSON holds them; steps are numbered as in metrics.jsonl, from 1.
    """
    return {
        "reason": str(stop),
        "bad_in_a_row": stop.bad_in_a_row,
        "first_step": stop.steps[0].step + 1,
        "last_step": stop.steps[-1].step + 1,
        "steps": [_describe_step(experiment, key, bad) for bad in stop.steps],
        "seeds": {"train": experiment.train.seed},
        "config": experiment.config.to_dict(),
        "versions": package_versions(),
        "device": device_facts(),
        **run_origin(),
    }


def _describe_step(experiment: Experiment, key: PRNGKey, bad: BadStep) -> dict[str, Any]:
    batch_size = experiment.batch_sizes[bad.stage]
    turn = turn_of_step(experiment.train.seed, bad.step, experiment.bucket_steps)
    first_clip = turn.rank * max(experiment.batch_sizes)
    step_key = jax.random.fold_in(key, bad.step)
    shown = experiment.shapes[turn.bucket]  # whose times may be shifted more than others'
    t = np.asarray(
        method.sample_times(shown.pyramid, bad.stage, split_step_key(step_key).time, batch_size)
    )
    return {
        "step": bad.step + 1,
        "stage": bad.stage,
        "bucket": shown.bucket,
        "clips": [first_clip, first_clip + batch_size - 1],
        "is_spike": bad.is_spike,
        "loss": str(bad.loss),  # text: JSON has no NaN
        "grad_norm": str(bad.grad_norm),
        "key": [int(word) for word in np.ravel(jax.random.key_data(step_key))],
        "t": {"mean": t.mean(), "min": t.min(), "max": t.max()},
    }


def local_arrays(batch: Any) -> dict[str, Any]:
    """Return this process's part of each array of a batch, by its path, as in `cond.label`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(batch)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): _local(leaf)
        for path, leaf in leaves
    }


def _local(array: jax.Array) -> np.ndarray:
    """Each stretch of rows once, in order; devices may hold copies."""
    rows = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(rows[start]) for start in sorted(rows)])
