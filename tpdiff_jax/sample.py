"""Sampling: videos from a checkpoint, written batch by batch."""

import pathlib
import time

import jax

from tpdiff_jax.checks import counted
from tpdiff_jax.generation.from_checkpoint import OpenedRun
from tpdiff_jax.generation.output_folder import only_these_videos
from tpdiff_jax.generation.prompts import SampleFlags
from tpdiff_jax.generation.requested_videos import request_videos
from tpdiff_jax.generation.sample_files import SampleWriter, check_names, open_decoder
from tpdiff_jax.run_log.progress import Progress


def sample_run(run: OpenedRun, flags: SampleFlags, out: pathlib.Path | None) -> pathlib.Path:
    """Generate videos from a checkpoint and write them, batch by batch.

    Args:
        run: the opened checkpoint.
        flags: what to show and how to call it.
        out: folder, empty or not there yet; by default one named by step, seed and, if
            another one is asked for, pyramid, in the run's `samples/`.

    Returns:
        The folder written.

    Raises:
        ValueError: when what is asked for does not fit the data set, weights not its clips, a
            prompt cannot be the name of a file, or the folder is not empty; nothing is sampled.
        WriteError: when the disk is full or broken.
    """
    experiment, spec = run.experiment, run.experiment.sample
    decode = open_decoder(experiment.dataset, spec.video_weights)
    asked = request_videos(run, flags, num_videos=run.num_videos, seed=spec.seed)
    suffix = run.pyramid.suffix if run.pyramid else ""
    folder = out or run.workdir / "samples" / f"step_{run.step:08d}_seed_{spec.seed}{suffix}"
    started_at = time.monotonic()
    check_names(folder, asked.captions, flags.naming)
    total, done = len(asked.captions), 0
    with only_these_videos(folder), Progress(total, label="sample", unit="video") as progress:
        writer = SampleWriter(folder, experiment.dataset.fps, decode, flags.naming)
        for videos, captions in asked.batches():
            if jax.process_index() == 0:
                writer.write(videos, captions)
            done += len(videos)
            progress.update(done)
        if jax.process_index() == 0:
            writer.finish()
    if run.pyramid and jax.process_index() == 0:
        cost, seconds = run.pyramid.cost(), time.monotonic() - started_at
        print(
            f"pyramid {cost['name']}: {counted(total, 'video')} in {seconds:.1f} s, compiling "
            f"included; {cost['calls']} network calls, {cost['flops_ratio']:.3g} of the FLOPs of "
            f"the run's own {cost['own_calls']}"
        )
    return folder
