"""A finished or running workdir as sampling and evaluation need it: experiment and parameters."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from absl import logging
from ml_collections import ConfigDict

from tpdiff_jax.experiment.build import Experiment, build_experiment
from tpdiff_jax.generation.clips_of_run import clips_of_run
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
    data_folder: str | None = None


class OpenedRun(NamedTuple):
    """A checkpoint opened for use.

    Attributes:
        workdir: the run's folder.
        step: completed steps.
        experiment: the run.
        params: the moving average of the parameters.
        num_videos: how many videos are asked for on the command line; None where it does not say.
    """

    workdir: pathlib.Path
    step: int
    experiment: Experiment
    params: Params
    num_videos: int | None = None


def open_run(
    workdir: pathlib.Path,
    *,
    config: ConfigDict | None = None,
    step: int | None = None,
    overrides: GenerateFlags | None = None,
    is_measured: bool = False,
) -> OpenedRun:
    """Read the config and a checkpoint of `workdir`, which may lie anywhere, with its clips or not.

    Args:
        workdir: a folder that `--mode=train` has made.
        config: may differ from the saved one in the groups `sample`, `eval`, `measure` and
            `mesh`, and in where something lies.
        step: checkpoint to read; None takes the newest that can be read.
        overrides: command-line flags, applied last.
        is_measured: whether figures are wanted, so that networks that measure must be there.

    Returns:
        The run, with the moving average of the parameters.

    Raises:
        ValueError: when the folder is no run, the config differs or no checkpoint can be read.
    """
    saved, overrides = run_config.load_config(workdir), overrides or GenerateFlags()
    is_place_given = overrides.data_folder is not None
    if config is not None:
        run_config.check_same_run(saved, config, free_groups=run_config.GENERATE_GROUPS)
        is_place_given |= "data.folder" in run_config.changed_places(saved, config)
        free = (*run_config.GENERATE_GROUPS, "mesh")
        for group in (group for group in free if group in config):
            saved[group] = config[group].copy_and_resolve_references()
        if "folder" in config.data:
            saved.data.folder = config.data.folder
    elif not is_measured:
        _leave_out_what_is_gone(saved)
    asked = _override(saved, overrides)
    clips = clips_of_run(workdir, asked, is_place_given=is_place_given)
    experiment = build_experiment(asked, clips=clips)
    bucket = overrides.bucket
    shown = experiment.of_bucket(experiment.shapes[0].bucket if bucket is None else bucket)
    checkpoints = Checkpoints(workdir, identity=experiment.identity, create=False)
    restored = checkpoints.restore(abstract_train_state(experiment), step)
    if restored is None:
        raise CheckpointError(f"{workdir} holds no checkpoint yet")
    logging.info("read the checkpoint of step %d", restored.step)
    params = averaged_params(experiment.task, restored.state)
    return OpenedRun(workdir, restored.step, shown, params, overrides.num_videos)


def _leave_out_what_is_gone(config: ConfigDict) -> None:
    """Forget what the run was measured with where it has moved: nothing is measured now."""
    for name in ("fvd_weights", "clip_folder"):
        if (place := config.get("measure", {}).get(name)) and not pathlib.Path(place).exists():
            logging.warning("measure.%s=%s is not here; it is not needed now", name, place)
            config.measure[name] = ""


def _override(config: ConfigDict, overrides: GenerateFlags) -> ConfigDict:
    for group in ("sample", "eval"):
        if overrides.num_videos is not None:
            config[group].num_videos = overrides.num_videos
        if overrides.seed is not None:
            config[group].seed = overrides.seed
    if overrides.data_folder is not None:
        if "folder" not in config.data:
            raise ValueError(f"--data_folder: data.name={config.data.name!r} reads no folder")
        config.data.folder = overrides.data_folder
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
