"""Sampling: videos from a checkpoint, written batch by batch."""

import pathlib

import jax

from tpdiff_jax.generation.from_checkpoint import OpenedRun
from tpdiff_jax.generation.output_folder import only_these_videos
from tpdiff_jax.generation.prompts import SampleFlags, read_requests
from tpdiff_jax.generation.sample_files import SampleWriter, check_names, open_decoder
from tpdiff_jax.generation.sampler import Sampler
from tpdiff_jax.run_log.progress import Progress


def sample_run(run: OpenedRun, flags: SampleFlags, out: pathlib.Path | None) -> pathlib.Path:
    """Generate videos from a checkpoint and write them, batch by batch.

    Args:
        run: the opened checkpoint.
        flags: what to show and how to call it.
        out: folder, empty or not there yet; by default one named by step and seed in the run's
            `samples/`.

    Returns:
        The folder written.

    Raises:
        ValueError: when what is asked for does not fit the data set, weights not its clips, a
            prompt cannot be the name of a file, or the folder is not empty; nothing is sampled.
        WriteError: when the disk is full or broken.
    """
    experiment, spec = run.experiment, run.experiment.sample
    decode = open_decoder(experiment.dataset, spec.video_weights)
    num_videos = spec.num_videos if run.num_videos is None else run.num_videos
    requests, rows, null_cond = read_requests(
        experiment, flags, num_videos, is_number_given=run.num_videos is not None
    )
    folder = out or run.workdir / "samples" / f"step_{run.step:08d}_seed_{spec.seed}"
    captions = requests.captions
    check_names(folder, [captions[i] if captions else "" for i in rows], flags.naming)
    sampler = Sampler(experiment, null_cond=null_cond)
    with only_these_videos(folder), Progress(len(rows), label="sample", unit="video") as progress:
        writer = SampleWriter(folder, experiment.dataset.fps, decode, flags.naming)
        for start in range(0, len(rows), spec.batch_size):
            part = requests.take(rows[start : start + spec.batch_size])
            videos = sampler(
                run.params, part.cond, seed=spec.seed, batch_size=spec.batch_size, first=start
            )
            if jax.process_index() == 0:
                writer.write(videos, part.captions)
            progress.update(start + part.num_videos)
        if jax.process_index() == 0:
            writer.finish()
    return folder
