"""From a ConfigDict to typed objects: the only place that reads config fields.

Each object validates itself and names the full field in its error; what spans groups is checked
here. Nothing compiles before `build_experiment` has returned.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import AbstractMesh, Mesh
from ml_collections import ConfigDict

from tpdiff_jax import method
from tpdiff_jax.checks import check_at_least
from tpdiff_jax.data import ClipFacts, ClipShape, Dataset
from tpdiff_jax.data.step_schedule import validate_stage_probs
from tpdiff_jax.devices import mesh as mesh_lib
from tpdiff_jax.experiment.experiment import Experiment
from tpdiff_jax.experiment.null_condition import make_null_cond
from tpdiff_jax.experiment.reader import ConfigReader
from tpdiff_jax.experiment.remat_field import without_the_word
from tpdiff_jax.experiment.shapes import (
    build_datasets,
    build_shapes,
    count_stages,
    stand_in_shape,
)
from tpdiff_jax.experiment.specs import GenerateSpec, LogSpec, TrainSpec
from tpdiff_jax.experiment.window_choice import (
    choose_fractions,
    draft_fractions,
    is_auto,
    with_fractions,
)
from tpdiff_jax.measures.clip_measures import MeasureSpec
from tpdiff_jax.method.sampler_spec import as_time_grids
from tpdiff_jax.method.time_grids import time_grids
from tpdiff_jax.models import MODELS, Network, make_network
from tpdiff_jax.models.layers.attention_kernels import PLATFORMS, check_kernel
from tpdiff_jax.models.published import PUBLISHED, PublishedWeights
from tpdiff_jax.optim.adaptation import Adaptation
from tpdiff_jax.optim.guard import GuardSpec
from tpdiff_jax.optim.optimizer import OptimizerSpec, make_optimizer, make_schedule
from tpdiff_jax.train_state import TrainTask

_LARGEST_STAND_IN = 2048  # of a side: what is made of it grows with the square


def build_experiment(
    config: ConfigDict,
    devices: Sequence[jax.Device] | None = None,
    frame_shape: tuple[int, ...] | None = None,
    clips: Mapping[str, Dataset | ClipShape] | None = None,
    *,
    is_for_training: bool = True,
) -> Experiment:
    """Turn a config into typed objects.

    Windows that are left to the clips are chosen here; the experiment's config has the numbers.

    Args:
        config: every field of every group.
        devices: what to place arrays on; by default all devices of all processes.
        frame_shape: (h, w, c) of frames to compile for in place of the data set's, or
            (f, h, w, c) without any data set at hand; such an experiment has no clips.
        clips: data set of each bucket in place of those that the config names.
        is_for_training: whether the devices must divide training's batches; videos are made on
            any number of them.

    Raises:
        ValueError: naming the full field, its value and what is allowed.
    """
    config = without_the_word(config)
    read = ConfigReader(config)
    mesh = mesh_lib.make_mesh(mesh_lib.MeshSpec(**read.group("mesh", *mesh_lib.MESH_AXES)), devices)
    datasets = build_datasets(read, frame_shape, clips)
    if is_auto(config):
        any_windows = with_fractions(config, draft_fractions(count_stages(read)))
        build = functools.partial(
            build_experiment,
            devices=devices,
            frame_shape=frame_shape,
            clips=datasets,
            is_for_training=is_for_training,
        )
        draft = build(any_windows)
        return build(with_fractions(config, choose_fractions(draft, datasets)))
    network = _build_network(read, next(iter(datasets.values())), mesh_lib.MeshLayout(mesh))
    shapes = build_shapes(read, datasets, network)
    pyramid = shapes[0].pyramid
    train = _build_train(read, pyramid.num_stages)
    optimizer_spec = _build_optimizer(read)
    schedule = make_schedule(optimizer_spec, train.num_steps)
    task = TrainTask(
        pyramid=pyramid,
        alignment=_build_alignment(read, train),
        apply=network.apply,
        null_cond=make_null_cond(network, _empty_prompt(read, shapes[0].facts)),
        optimizer=make_optimizer(optimizer_spec, schedule, mesh.devices.flat[0].platform),
        schedule=schedule,
        ema_decay=optimizer_spec.ema_decay,
        cond_dropout=train.cond_dropout,
        guard=_build_guard(read),
        batch_sharding=mesh_lib.sharding(mesh, "batch") if mesh.size > 1 else None,
        grad_accum_steps=train.grad_accum_steps,
        adaptation=_build_adaptation(read, network),
    )
    experiment = Experiment(
        config=config,
        shapes=shapes,
        network=network,
        task=task,
        train=train,
        log=LogSpec(**read.given_of_group("log", *_names(LogSpec))),
        sampler=_build_sampler(read, pyramid.num_stages),
        sample=_build_sample(read),
        evaluation=_build_generate(read, "eval"),
        measure=MeasureSpec(**read.given_of_group("measure", *_names(MeasureSpec))),
        mesh=mesh,
        num_data_threads=_num_threads(read),
        weights=_weights(read),
        adapter=_adapter(read),
    )
    read.check_all_known()
    if is_for_training:
        _check_batches(train, mesh)
    _check_axes(experiment)
    for of_shape in shapes:
        with of_shape.naming():
            time_grids(of_shape.pyramid, experiment.sampler)
    return experiment


def _check_batches(train: TrainSpec, mesh: Mesh | AbstractMesh) -> None:
    """Raise ValueError unless the mesh divides training's batches evenly."""
    mesh_lib.check_divisible("train.batch_size", train.batch_size, mesh)
    part = train.batch_size // train.grad_accum_steps
    mesh_lib.check_divisible("train.batch_size / train.grad_accum_steps", part, mesh)


def _check_axes(experiment: Experiment) -> None:
    """Raise ValueError unless the mesh divides the network's axes evenly."""
    for clips in experiment.shapes:
        for stage in clips.pyramid.stages:
            for what, (axis, size) in experiment.network.axis_sizes(stage.shape).items():
                with clips.naming():
                    mesh_lib.check_divisible(what, size, experiment.mesh, axis)


def build_schedule(config: ConfigDict) -> optax.Schedule:
    """Return the learning rate of a config as a function of applied updates.

    Raises:
        ValueError: naming the full field, its value and what is allowed.
    """
    read = ConfigReader(config)
    return make_schedule(_build_optimizer(read), read("train.num_steps"))


def schedule_length(config: ConfigDict) -> int:
    """Return the steps that the learning rate's schedule of a config is made for."""
    read = ConfigReader(config)
    return _build_optimizer(read).schedule_steps or read("train.num_steps")


def check_fields(config: ConfigDict, num_devices: int | None = None) -> None:
    """Check what a config says where neither its data nor its devices are at hand.

    All of it is built, for one device. Clips that lie in a folder get the shape of none in
    particular, so that what depends on theirs is not looked at; nor is anything but the mesh where
    strides are such that even this shape would take long.

    Args:
        config: every field of every group, as the trainer would get it.
        num_devices: that mesh and batches have to come out even on; None where it is not known.

    Raises:
        ValueError: naming the full field, its value and what is allowed.
    """
    read = ConfigReader(config)
    mesh = mesh_lib.MeshSpec(**read.group("mesh", *mesh_lib.MESH_AXES))
    if num_devices is not None:
        there = AbstractMesh(mesh.shape(num_devices), mesh_lib.MESH_AXES)
        _check_batches(_build_train(read, count_stages(read)), there)
    here = config.copy_and_resolve_references()
    for axis in mesh_lib.MESH_AXES:
        here.mesh[axis] = 1
    _leave_to_workers(here)
    if is_auto(here):  # chosen from the clips
        here = with_fractions(here, draft_fractions(count_stages(read)))
    shape = None
    if "folder" in config.data:
        shape = stand_in_shape(read)
        _build_sampler(read, count_stages(read))
        if "time_grids" in here.sample:
            here.sample.time_grids = ()  # start where the windows of the clips' own length do
    if shape is None or max(shape) <= _LARGEST_STAND_IN:
        build_experiment(here, jax.devices("cpu")[:1], shape)


def _leave_to_workers(config: ConfigDict) -> None:
    """Take out what only the machines that train have: files, and kernels of their devices."""
    for name in ("fvd_weights", "clip_folder", "real_clips"):
        if name in config.get("measure", {}):
            config.measure[name] = ""
    leave_kernel_to_devices(config)


def leave_kernel_to_devices(config: ConfigDict) -> None:
    """Put `auto` in the place of an attention kernel that other devices than these may have.

    Args:
        config: every field of every group; the field is changed.

    Raises:
        ValueError: for a kernel whose devices would not take it either.
    """
    model = config.get("model", {})
    if (kernel := model.get("attention_kernel")) in PLATFORMS:
        check_kernel(kernel, PLATFORMS[kernel], model.get("dtype"))
        model.attention_kernel = "auto"


def _num_threads(read: ConfigReader) -> int:
    count = read("data.num_threads")
    check_at_least("data.num_threads", count, 0)
    return count


def _weights(read: ConfigReader) -> PublishedWeights | None:
    if not (folder := read("model.weights")):
        return None
    return PublishedWeights(read.choice("model.name", PUBLISHED), pathlib.Path(folder))


def _adapter(read: ConfigReader) -> pathlib.Path | None:
    folder, rank = read.given_of_group("adaptation", "weights").get("weights"), "adaptation.rank"
    if not folder:
        return None
    if not read(rank):
        raise ValueError(
            f"adaptation.weights={folder} is where low-rank changes start from, and {rank} is 0; "
            "allowed: at least the adapter's rank"
        )
    return pathlib.Path(folder)


def _build_network(read: ConfigReader, clips: ClipFacts, layout: mesh_lib.MeshLayout) -> Network:
    return make_network(
        read.choice("model.name", MODELS),
        layout,
        read.rest_of_group("model", "name", "weights"),
        channels=clips.frame_shape[-1],
        num_classes=clips.num_classes,
    )


def _empty_prompt(read: ConfigReader, clips: ClipFacts) -> Mapping[str, np.ndarray]:
    """The encoded empty prompt, unless the network knows what stands for no text."""
    return {} if MODELS[read("model.name")].has_no_text else clips.null_cond


def _build_train(read: ConfigReader, num_stages: int) -> TrainSpec:
    fields = read.group("train", *_names(TrainSpec))
    fields["stage_probs"] = validate_stage_probs(
        read.numbers("train.stage_probs", float), num_stages
    )
    return TrainSpec(**fields)


def _build_optimizer(read: ConfigReader) -> OptimizerSpec:
    return OptimizerSpec(
        **read.group(
            "optim",
            *("name", "learning_rate", "schedule", "warmup_steps", "weight_decay"),
            *("b1", "b2", "clip_norm", "ema_decay", "adam_ratio"),
        ),
        **read.given_of_group("optim", "schedule_steps"),
    )


def _build_guard(read: ConfigReader) -> GuardSpec:
    names = ("spike_factor", "window", "warmup_steps", "max_bad_steps")
    return GuardSpec(**read.group("guard", *names))


def _build_alignment(read: ConfigReader, train: TrainSpec) -> method.AlignmentSpec:
    spec = method.AlignmentSpec(
        **read.group("alignment", "mode", "level", "group_size", "num_candidates")
    )
    unit, factors = train.grad_accum_steps, f"train.grad_accum_steps={train.grad_accum_steps}"
    if spec.batch_unit > 1:
        unit, factors = (
            unit * spec.batch_unit,
            f"{factors} * alignment.group_size={spec.batch_unit}",
        )
    if train.batch_size % unit:
        raise ValueError(f"train.batch_size={train.batch_size} must be a multiple of {factors}")
    return spec


def _build_adaptation(read: ConfigReader, network: Network) -> Adaptation:
    adaptation = Adaptation(**read.group("adaptation", "trained", "rank", "alpha"))
    if adaptation != Adaptation():
        adaptation.chosen(jax.eval_shape(network.init, jax.random.key(0)))
    return adaptation


def _build_sampler(read: ConfigReader, num_stages: int) -> method.SamplerSpec:
    num_steps, steps = read("sample.num_steps"), read.numbers("sample.steps_per_stage", int)
    scale, per_stage = (
        read("sample.guidance_scale"),
        read.numbers("sample.guidance_per_stage", float),
    )
    more = read.given_of_group("sample", "grid_power", "time_grids")
    grids, powers = as_time_grids(more.get("time_grids", ())), (1.0,)
    if "grid_power" in more:
        powers = read.numbers("sample.grid_power", float)
    for field, values in (
        ("sample.steps_per_stage", steps),
        ("sample.guidance_per_stage", per_stage),
        ("sample.time_grids", grids),
        ("sample.grid_power", powers[1:] and powers),
    ):
        if values and len(values) != num_stages:
            one = "one number" if field == "sample.grid_power" else "()"
            raise ValueError(
                f"{field}={values} must be {one} or have one entry a stage, {num_stages}"
            )
    if not steps:
        in_grids = tuple(len(grid) - 1 for grid in grids)
        steps = in_grids or method.split_steps(num_steps, num_stages)
    return method.SamplerSpec(
        steps_per_stage=steps,
        guidance_scale=per_stage or (scale,) * num_stages,
        grid_power=powers,
        time_grids=grids,
        **read.group("sample", "solver", "renoise"),
    )


def _build_sample(read: ConfigReader) -> GenerateSpec:
    fields = read.group("sample", "video_weights")
    fields |= read.given_of_group("sample", "prompts", "text_weights")
    return _build_generate(read, "sample", fields)


def _build_generate(
    read: ConfigReader, group: str, more: Mapping[str, Any] = MappingProxyType({})
) -> GenerateSpec:
    fields = read.group(group, "num_videos", "batch_size", "seed")
    return GenerateSpec(group=group, **fields, **more)


def _names(spec: type) -> list[str]:
    return [field.name for field in dataclasses.fields(spec)]
