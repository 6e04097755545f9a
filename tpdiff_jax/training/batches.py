"""The batch of every training step, as a pure function of (seed, step)."""

from collections.abc import Iterator
from typing import Any

from tpdiff_jax.data import make_iterator
from tpdiff_jax.data.step_schedule import ClipsOfStep
from tpdiff_jax.devices import mesh as mesh_lib
from tpdiff_jax.experiment.build import Experiment


def iterate_batches(experiment: Experiment, first_step: int) -> Iterator[Any]:
    """Yield the batch of each step from `first_step` on, as global arrays on the mesh."""
    mesh, spec = experiment.mesh, experiment.train
    clips = ClipsOfStep(
        seed=spec.seed,
        stage_probs=spec.stage_probs,
        rows=tuple(
            tuple(mesh_lib.local_rows(mesh, size).tolist()) for size in experiment.batch_sizes
        ),
        clips_per_step=max(experiment.batch_sizes),
        bucket_steps=experiment.bucket_steps,
    )
    batches = make_iterator(
        experiment.clips,
        split="train",
        seed=spec.seed,
        clips_of_step=clips,
        start_step=first_step,
        num_threads=experiment.num_data_threads,
    )
    for step, batch in enumerate(batches, start=first_step):
        fields = {"video": batch["video"], "cond": batch["cond"]}
        yield mesh_lib.put_batch(mesh, fields, experiment.batch_sizes[clips.stage(step)])
