"""What sampling, evaluation and export work on: an experiment and its network's parameters.

They come from a run's checkpoint or, with a config and no run, from the published weights that it
names; an adapter may be added to either.
"""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import logging
from ml_collections import ConfigDict

from tpdiff_jax.checks import naming
from tpdiff_jax.data import read_recorded_clips
from tpdiff_jax.experiment.build import Experiment, build_experiment
from tpdiff_jax.experiment.remat_field import with_saved_choices
from tpdiff_jax.files.json_files import refusing_odd_fields
from tpdiff_jax.generation.clips_of_run import clips_of_run
from tpdiff_jax.generation.other_pyramid import OtherPyramid, make_other_pyramid
from tpdiff_jax.generation.published_run import read_published_run
from tpdiff_jax.generation.pyramid_text import read_pyramid
from tpdiff_jax.models.adapter_names import adapter_names
from tpdiff_jax.models.adapters import AdaptedNetwork, merge_adapter, named_pairs
from tpdiff_jax.run_folder import run_config
from tpdiff_jax.run_folder.checkpoints import CheckpointError, Checkpoints
from tpdiff_jax.train_state import TrainState, averaged_params
from tpdiff_jax.training.initial_state import abstract_train_state, make_state, run_keys
from tpdiff_jax.types import Params
from tpdiff_jax.weights.adapter_files import read_adapter


class GenerateFlags(NamedTuple):
    """Command-line overrides of what is shown and measured; None keeps the config's value."""

    num_videos: int | None = None
    seed: int | None = None
    steps_per_stage: Sequence[str] | None = None
    guidance_scale: Sequence[str] | None = None
    video_weights: str | None = None
    fvd_weights: str | None = None
    clip_folder: str | None = None
    real_clips: str | None = None
    bucket: str | None = None
    adapter: str | None = None
    adapter_scale: str | float | None = None
    data_folder: str | None = None
    pyramid: str | Mapping[str, Any] | Sequence[Any] | None = None


class OpenedRun(NamedTuple):
    """A checkpoint opened for use.

    Attributes:
        workdir: of the run.
        step: of the checkpoint.
        experiment: what was trained.
        params: the network's, averaged; low-rank changes and a given adapter are in them.
        low_rank: averaged low-rank changes alone; None where none were trained.
        num_videos: how many videos are asked for on the command line; None where it does not say.
        trained_pyramid: fields of the config group `pyramid` that the parameters were trained with,
            where the experiment's config says others.
        pyramid: what the run is sampled through, which is then the experiment's; None: its own.
        adapter: `path` and `scale` of the adapter that is in the parameters; None without.
    """

    workdir: pathlib.Path
    step: int
    experiment: Experiment
    params: Params
    low_rank: Params | None = None
    num_videos: int | None = None
    trained_pyramid: Mapping[str, Any] | None = None
    pyramid: OtherPyramid | None = None
    adapter: Mapping[str, Any] | None = None


def open_run(
    workdir: pathlib.Path,
    *,
    config: ConfigDict | None = None,
    step: int | None = None,
    overrides: GenerateFlags | None = None,
    is_measured: bool = False,
) -> OpenedRun:
    """Read the config and a checkpoint of `workdir`, or published weights where there is no run.

    What `--mode=export --what=model_card` has written is opened as the run is. A run's folder is
    enough: where its clips have moved, what it keeps of them takes their place.

    Args:
        workdir: a folder that `--mode=train` has made.
        config: may differ from the saved one in the groups `sample`, `eval`, `measure` and
            `mesh` only, and in where something lies. In a workdir without a run, one that names
            `model.weights`: those are opened, as step 0.
        step: checkpoint to read; None takes the newest that can be read. An exported model has
            one.
        overrides: command-line flags, applied last.
        is_measured: whether figures are wanted, so that networks that measure must be there.

    Returns:
        The run, with the moving average of the parameters.

    Raises:
        ValueError: when the folder is no run, the config differs or no checkpoint can be read.
    """
    overrides = overrides or GenerateFlags()
    if overrides.pyramid is not None:
        plain, asked = _split_stages(overrides)
        run = open_run(workdir, config=config, step=step, overrides=plain, is_measured=is_measured)
        return through_pyramid(run, asked)
    if config is None and run_config.is_exported_model(workdir):
        return _open_published(workdir, step, overrides)
    config = config and with_saved_choices(config, workdir)
    if config is not None and _is_of_weights(workdir, config):
        return _open_weights(workdir, config, overrides)
    saved, is_place_given = run_config.load_config(workdir), overrides.data_folder is not None
    with refusing_odd_fields(workdir / run_config.FILE_NAME):
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
        experiment = build_experiment(asked, clips=clips, is_for_training=False)
    checkpoints = Checkpoints(workdir, identity=experiment.identity, create=False)
    restored = checkpoints.restore(abstract_train_state(experiment), step)
    if restored is None:
        raise CheckpointError(f"{workdir} holds no checkpoint yet")
    logging.info("read the checkpoint of step %d", restored.step)
    return _opened(workdir, experiment, restored.step, restored.state, overrides)


def through_pyramid(
    run: OpenedRun, asked: str | Mapping[str, Any] | Sequence[Any] | int
) -> OpenedRun:
    """Return an opened run that is sampled and evaluated through another pyramid.

    Args:
        run: opened with its own.
        asked: as `--pyramid`, or the same fields by name; see `make_other_pyramid`.

    Raises:
        ValueError: when it does not fit the network, its clips or what it was trained for.
    """
    own = run.experiment if run.pyramid is None else run.pyramid.own
    made = make_other_pyramid(own, asked, run.trained_pyramid)
    return run._replace(experiment=made.experiment, pyramid=made)


def _split_stages(overrides: GenerateFlags) -> tuple[GenerateFlags, dict[str, Any]]:
    """The flags that go for any pyramid, and the pyramid with those that have an entry a stage."""
    asked = read_pyramid(overrides.pyramid or ())
    given: dict[str, tuple[Any, ...]] = {}
    if (steps := overrides.steps_per_stage) is not None:
        given["steps_per_stage"] = tuple(_numbers("--steps_per_stage", steps, int))
        overrides = overrides._replace(steps_per_stage=None)
    if (scales := overrides.guidance_scale) is not None and len(scales) > 1:
        given["guidance_per_stage"] = tuple(_numbers("--guidance_scale", scales, float))
        overrides = overrides._replace(guidance_scale=None)
    if twice := asked.keys() & given.keys():
        raise ValueError(f"--pyramid gives {min(twice)}, and a flag of its own does so too")
    return overrides._replace(pyramid=None), asked | given


def _leave_out_what_is_gone(config: ConfigDict) -> None:
    """Forget what the run was measured with where it has moved: nothing is measured now."""
    for name in ("fvd_weights", "clip_folder", "real_clips"):
        if (place := config.get("measure", {}).get(name)) and not pathlib.Path(place).exists():
            logging.warning("measure.%s=%s is not here; it is not needed now", name, place)
            config.measure[name] = ""


def _is_of_weights(workdir: pathlib.Path, config: ConfigDict) -> bool:
    return not (workdir / run_config.FILE_NAME).exists() and bool(config.model.get("weights"))


def _open_weights(workdir: pathlib.Path, config: ConfigDict, overrides: GenerateFlags) -> OpenedRun:
    """Open the weights that training of `config` would start from."""
    asked = _override(config.copy_and_resolve_references(), overrides)
    experiment = build_experiment(asked, is_for_training=False)
    logging.info("%s holds no run: %s it is", workdir, config.model.weights)
    state = make_state(experiment, run_keys(experiment.train.seed)[0])
    run = _opened(workdir, experiment, 0, state, overrides)
    return run._replace(trained_pyramid=_pyramid_of_weights(pathlib.Path(config.model.weights)))


def _pyramid_of_weights(folder: pathlib.Path) -> Mapping[str, Any]:
    """What weights were trained with: as a run that was written for others says, else one stage."""
    if not (folder / run_config.PUBLISHED_RUN_FILE).is_file():
        return {"frame_strides": (1,)}
    return read_published_run(folder)[0].pyramid.to_dict()


def _open_published(
    workdir: pathlib.Path, asked: int | None, overrides: GenerateFlags
) -> OpenedRun:
    """Open the weights of a run that others have published, with what it kept of its clips."""
    saved, step = read_published_run(workdir)
    if asked not in (None, step):
        raise ValueError(f"--step={asked}: {workdir} is an exported model, of step {step} alone")
    with refusing_odd_fields(workdir / run_config.PUBLISHED_RUN_FILE):
        clips = read_recorded_clips(workdir) if overrides.data_folder is None else None
        asked_for = _override(saved, overrides)
        experiment = build_experiment(asked_for, clips=clips or None, is_for_training=False)
    logging.info("%s holds published weights, of step %d", workdir, step)
    state = make_state(experiment, run_keys(experiment.train.seed)[0])
    return _opened(workdir, experiment, step, state, overrides)


def _opened(
    workdir: pathlib.Path,
    experiment: Experiment,
    step: int,
    state: TrainState,
    overrides: GenerateFlags,
) -> OpenedRun:
    bucket = experiment.shapes[0].bucket if overrides.bucket is None else overrides.bucket
    shown = experiment.of_bucket(bucket)
    params = averaged_params(experiment.task, state)
    if overrides.adapter is None and overrides.adapter_scale is not None:
        raise ValueError(f"--adapter_scale={overrides.adapter_scale} needs --adapter")
    adapter = None
    if overrides.adapter is not None:
        path, scale = str(overrides.adapter), _strength(overrides.adapter_scale)
        adapter = {"path": path, "scale": scale}
        params = _with_adapter(experiment, params, path, scale)
    low_rank = state.ema_params if experiment.task.adaptation.rank else None
    return OpenedRun(workdir, step, shown, params, low_rank, overrides.num_videos, adapter=adapter)


def _with_adapter(experiment: Experiment, params: Params, path: str, scale: float) -> Params:
    """Add the adapter of --adapter to the parameters."""
    names = adapter_names(experiment.config.model.name)
    network = AdaptedNetwork(names, experiment.network.config, params)
    with naming("--adapter"):
        file = read_adapter(pathlib.Path(path))
        pairs = named_pairs(file, network)
    logging.info("adds %g times %s", scale, file)
    return merge_adapter(params, pairs, network, file.layout, scale)


def _strength(given: str | float | None) -> float:
    try:
        scale = 1.0 if given is None else float(given)
    except ValueError:
        scale = math.nan
    if not math.isfinite(scale):
        raise ValueError(f"--adapter_scale is {given}; allowed: finite numbers")
    return scale


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
    for name in ("fvd_weights", "clip_folder", "real_clips"):
        if (value := getattr(overrides, name)) is not None:
            with config.unlocked():  # not every config has the group
                config.measure = {**config.get("measure", {}), name: value}
    return config


def _numbers(flag: str, texts: Sequence[str], kind: type) -> list:
    try:
        return [kind(text) for text in texts]
    except ValueError as error:
        raise ValueError(f"{flag}={','.join(texts)} must be numbers joined by commas") from error
