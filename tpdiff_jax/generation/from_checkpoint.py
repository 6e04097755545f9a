"""A finished or running workdir as sampling and evaluation need it: experiment and parameters."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from absl import logging
from ml_collections import ConfigDict

from tpdiff_jax.experiment.build import Experiment, build_experiment
from tpdiff_jax.files.json_files import refusing_odd_fields
from tpdiff_jax.run_folder import run_config
from tpdiff_jax.run_folder.checkpoints import CheckpointError, Checkpoints
from tpdiff_jax.train_state import averaged_params
from tpdiff_jax.training.initial_state import abstract_train_state
from tpdiff_jax.types import Params


class GenerateFlags(NamedTuple):
    """Command-line overrides of what is shown and measured; None keeps the config's value."""

    num_videos: int | None = None
    seed: int | None = None
    steps_per_stage: Sequence[str] | None = None
    guidance_scale: Sequence[str] | None = None
    video_weights: str | None = None
    fvd_weights: str | None = None
    clip_folder: str | None = None
    bucket: str | None = None


class OpenedRun(NamedTuple):
    """A checkpoint opened for use."""

    workdir: pathlib.Path
    step: int
    experiment: Experiment
    params: Params


def open_run(
    workdir: pathlib.Path,
    *,
    config: ConfigDict | None = None,
    step: int | None = None,
    overrides: GenerateFlags | None = None,
) -> OpenedRun:
    """Read the config and a checkpoint of `workdir`.

    Args:
        workdir: a folder that `--mode=train` has made.
        config: may differ from the saved one in the groups `sample`, `eval`, `measure` and
            `mesh` only.
        step: checkpoint to read; None takes the newest that can be read.
        overrides: command-line flags, applied last.

    Returns:
        The run, with the moving average of the parameters.

    Raises:
        ValueError: when the folder is no run, the config differs or no checkpoint can be read.
    """
    saved = run_config.load_config(workdir)
    with refusing_odd_fields(workdir / run_config.FILE_NAME):
        if config is not None:
            run_config.check_same_run(saved, config, free_groups=run_config.GENERATE_GROUPS)
            free = (*run_config.GENERATE_GROUPS, "mesh")
            for group in (group for group in free if group in config):
                saved[group] = config[group].copy_and_resolve_references()
        experiment = build_experiment(_override(saved, overrides or GenerateFlags()))
    bucket = overrides.bucket if overrides else None
    shown = experiment.of_bucket(experiment.shapes[0].bucket if bucket is None else bucket)
    checkpoints = Checkpoints(workdir, identity=experiment.identity, create=False)
    restored = checkpoints.restore(abstract_train_state(experiment), step)
    if restored is None:
        raise CheckpointError(f"{workdir} holds no checkpoint yet")
    logging.info("read the checkpoint of step %d", restored.step)
    params = averaged_params(experiment.task, restored.state)
    return OpenedRun(workdir, restored.step, shown, params)


def _override(config: ConfigDict, overrides: GenerateFlags) -> ConfigDict:
    for group in ("sample", "eval"):
        if overrides.num_videos is not None:
            config[group].num_videos = overrides.num_videos
        if overrides.seed is not None:
            config[group].seed = overrides.seed
    if overrides.video_weights is not None:
        config.sample.video_weights = overrides.video_weights
    if overrides.steps_per_stage is not None:
        steps = _numbers("--steps_per_stage", overrides.steps_per_stage, int)
        config.sample.steps_per_stage = tuple(steps)
    if overrides.guidance_scale is not None:
        scales = _numbers("--guidance_scale", overrides.guidance_scale, float)
        if len(scales) == 1:
            config.sample.guidance_scale, config.sample.guidance_per_stage = scales[0], ()
        else:
            config.sample.guidance_per_stage = tuple(scales)
    for name in ("fvd_weights", "clip_folder"):
        if (value := getattr(overrides, name)) is not None:
            config.measure = {**config.get("measure", {}), name: value}
    return config


def _numbers(flag: str, texts: Sequence[str], kind: type) -> list:
    try:
        return [kind(text) for text in texts]
    except ValueError as error:
        raise ValueError(f"{flag}={','.join(texts)} must be numbers joined by commas") from error
