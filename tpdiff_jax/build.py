"""From a ConfigDict to typed objects: the only place that reads config fields.

Each object validates itself and names the full field in its error; what spans groups is checked
here. Nothing compiles before `build_experiment` has returned.
"""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
from ml_collections import ConfigDict

from tpdiff_jax import method
from tpdiff_jax.clip_measures import MeasureSpec
from tpdiff_jax.data import DATASETS, ClipFacts, ClipShape, Dataset, bucket_folders, to_frame_shape
from tpdiff_jax.encoders import FIRST_LATENT_APART
from tpdiff_jax.error_names import naming
from tpdiff_jax.experiment import Experiment
from tpdiff_jax.infra import mesh as mesh_lib
from tpdiff_jax.infra.adaptation import Adaptation
from tpdiff_jax.infra.guard import GuardSpec
from tpdiff_jax.infra.optimizer import OptimizerSpec, make_optimizer, make_schedule
from tpdiff_jax.models import MODELS, Network
from tpdiff_jax.null_condition import make_null_cond
from tpdiff_jax.pretrained import PUBLISHED, PublishedWeights
from tpdiff_jax.run_config import ConfigReader
from tpdiff_jax.run_specs import GenerateSpec, TrainSpec
from tpdiff_jax.stage_schedule import validate_stage_probs
from tpdiff_jax.train_step import TrainTask
from tpdiff_jax.videos.prepare_spec import PrepareSpec

PATHS = ("flow", "ddim")
Built = TypeVar("Built")


def build_experiment(
    config: ConfigDict,
    devices: Sequence[jax.Device] | None = None,
    frame_shape: tuple[int, ...] | None = None,
) -> Experiment:
    """Turn a config into typed objects.

    Args:
        config: every field of every group.
        devices: what to place arrays on; by default all devices of all processes.
        frame_shape: (h, w, c) of frames to compile for in place of the data set's, or
            (f, h, w, c) without any data set at hand; such an experiment has no clips.

    Raises:
        ValueError: naming the full field, its value and what is allowed.
    """
    read = ConfigReader(config)
    mesh = mesh_lib.make_mesh(mesh_lib.MeshSpec(**read.group("mesh", *mesh_lib.MESH_AXES)), devices)
    first, *others = _build_shapes(read, mesh_lib.MeshLayout(mesh), frame_shape)
    bucket, dataset, network, pyramid = first
    train = _build_train(read, pyramid.num_stages)
    alignment = _build_alignment(read, train)
    optimizer_spec = OptimizerSpec(
        **read.group(
            "optim",
            *("name", "learning_rate", "schedule", "warmup_steps", "weight_decay"),
            *("b1", "b2", "clip_norm", "ema_decay"),
        )
    )
    schedule = make_schedule(optimizer_spec, train.num_steps)
    task = TrainTask(
        pyramid=pyramid,
        alignment=alignment,
        apply=network.apply,
        null_cond=make_null_cond(network, dataset.null_cond),
        optimizer=make_optimizer(optimizer_spec, schedule),
        schedule=schedule,
        ema_decay=optimizer_spec.ema_decay,
        cond_dropout=train.cond_dropout,
        guard=GuardSpec(
            **read.group("guard", "spike_factor", "window", "warmup_steps", "max_bad_steps")
        ),
        batch_sharding=mesh_lib.sharding(mesh, "batch") if mesh.size > 1 else None,
        grad_accum_steps=train.grad_accum_steps,
        adaptation=_build_adaptation(read, network),
    )
    experiment = Experiment(
        config=config,
        clip_facts=dataset,
        network=network,
        task=task,
        train=train,
        sampler=_build_sampler(read, pyramid.num_stages),
        sample=_build_generate(read, "sample", "video_weights"),
        evaluation=_build_generate(read, "eval"),
        measure=MeasureSpec(**read.given_of_group("measure", *_names(MeasureSpec))),
        mesh=mesh,
        num_data_threads=_num_threads(read),
        weights=_weights(read),
        bucket=bucket,
    )
    other_buckets = tuple(_for_shape(experiment, shape) for shape in others)
    experiment = dataclasses.replace(experiment, other_buckets=other_buckets)
    read.check_all_known()
    for field in ("train.batch_size", "sample.batch_size", "eval.batch_size"):
        mesh_lib.check_divisible(field, read(field), mesh)
    part = train.batch_size // train.grad_accum_steps
    mesh_lib.check_divisible("train.batch_size / train.grad_accum_steps", part, mesh)
    for shaped in experiment.buckets:
        for what, (axis, size) in shaped.network.axis_sizes.items():
            with _naming(shaped.bucket):
                mesh_lib.check_divisible(what, size, mesh, axis)
    return experiment


def build_prepare(config: ConfigDict) -> PrepareSpec:
    """Turn a config with the group `prepare` into its spec.

    Raises:
        ValueError: naming the full field, its value and what is allowed.
    """
    read = ConfigReader(config)
    spec = PrepareSpec(**read.group("prepare", *_names(PrepareSpec)))
    read.check_all_known()
    return spec


def _num_threads(read: ConfigReader) -> int:
    if (count := read("data.num_threads")) < 0:
        raise ValueError(f"data.num_threads={count} must not be negative")
    return count


class _Shape(NamedTuple):
    """What depends on the shape of clips."""

    bucket: str
    clip_facts: Dataset | ClipShape
    network: Network
    pyramid: method.Pyramid


def _naming(bucket: str) -> contextlib.AbstractContextManager[None]:
    """Name the bucket, where there are several, in an error about its shape."""
    return naming(f"bucket {bucket} of data.folder" if bucket else "")


def _build_shapes(
    read: ConfigReader, layout: mesh_lib.MeshLayout, frame_shape: tuple[int, ...] | None
) -> list[_Shape]:
    datasets, shapes = _build_datasets(read, frame_shape), []
    for bucket, dataset in datasets.items():
        with _naming(bucket):  # each length by itself: below, all of them are checked
            _build_pyramid(read, dataset.num_frames, ())
    for bucket, dataset in datasets.items():
        others = [other.num_frames for name, other in datasets.items() if name != bucket]
        with _naming(bucket):
            pyramid = _build_pyramid(read, dataset.num_frames, others)
            _check_first_latent(read, pyramid, dataset)
            network = _build_network(read, dataset, layout)
            if isinstance(dataset, ClipShape):
                dataset = dataclasses.replace(dataset, encoded=network.cond_shapes)
            _check_condition(network, dataset)
        shapes.append(_Shape(bucket, dataset, network, pyramid))
    return shapes


def _for_shape(experiment: Experiment, shape: _Shape) -> Experiment:
    """The same for clips of another shape."""
    task = experiment.task._replace(
        pyramid=shape.pyramid,
        apply=shape.network.apply,
        null_cond=make_null_cond(shape.network, shape.clip_facts.null_cond),
    )
    return dataclasses.replace(
        experiment,
        bucket=shape.bucket,
        clip_facts=shape.clip_facts,
        network=shape.network,
        task=task,
    )


def _build_datasets(
    read: ConfigReader, frame_shape: tuple[int, ...] | None
) -> Mapping[str, Dataset | ClipShape]:
    """The data set of each bucket; one named "" where clips have one shape."""
    name = _choice(read, "data.name", DATASETS)
    fields = read.rest_of_group("data", "name", "num_threads")
    if frame_shape is not None and len(frame_shape) == 4:
        return {
            "": ClipShape(num_frames=frame_shape[0], frame_shape=to_frame_shape(frame_shape[1:]))
        }
    places = {"": fields}
    if "folder" in fields:
        folders = bucket_folders(fields["folder"])
        places = {bucket: fields | {"folder": folder} for bucket, folder in folders.items()}
    datasets = {b: _construct(read, "data", DATASETS[name], f) for b, f in places.items()}
    if frame_shape is None:
        return datasets
    dataset = next(iter(datasets.values()))
    shape = ClipShape(
        num_frames=dataset.num_frames,
        frame_shape=to_frame_shape(frame_shape),
        num_digits=dataset.num_digits,
        num_classes=dataset.num_classes,
    )
    return {"": shape}


def _check_first_latent(
    read: ConfigReader, pyramid: method.Pyramid, dataset: Dataset | ClipShape
) -> None:
    """Raise ValueError where a stage would copy the code of one frame into that of several."""
    if isinstance(dataset, ClipShape) or pyramid.num_stages == 1:
        return
    name = dataset.encoders["video"]["name"]
    if name in FIRST_LATENT_APART and read("pyramid.upsample") == "nearest":
        raise ValueError(
            "pyramid.upsample='nearest' would copy the first latent, which has statistics of its "
            f"own where prepare.video_encoder={name!r}; allowed: nearest_next, linear"
        )


def _check_condition(network: Network, dataset: ClipFacts) -> None:
    """Raise ValueError unless clips bring the condition that the network takes."""
    for name, (shape, _) in network.cond_shapes.items():
        found, _ = dataset.cond_shapes.get(name, (None, None))
        if found != shape:
            raise ValueError(
                f"the network takes {name!r} of shape {shape} with every clip, the data has "
                f"{found}; prepare.text_encoder makes it, fields of model must fit"
            )


def _weights(read: ConfigReader) -> PublishedWeights | None:
    if not (folder := read("model.weights")):
        return None
    return PublishedWeights(_choice(read, "model.name", PUBLISHED), pathlib.Path(folder))


def _construct(
    read: ConfigReader, group: str, constructor: Callable[..., Built], fields: dict[str, Any]
) -> Built:
    """Call a registered constructor; a field that it lacks is the user's mistake."""
    try:
        return constructor(**fields)
    except TypeError as error:
        name = read(f"{group}.name")
        raise ValueError(f"fields of {group} do not fit {group}.name={name!r}: {error}") from error


def _build_path(read: ConfigReader) -> method.Path:
    ddim_fields = read.group("path", "betas", "zero_terminal_snr", "final_alpha")
    prediction = read("path.prediction")
    if _choice(read, "path.name", PATHS) == "flow":
        return method.FlowPath(prediction=prediction)
    return method.DDIMPath(prediction=prediction, **ddim_fields)


def _build_pyramid(
    read: ConfigReader, num_frames: int, other_lengths: Sequence[int]
) -> method.Pyramid:
    """The pyramid of clips of one length; all lengths share the windows of its stages."""
    return method.make_pyramid(
        _build_path(read),
        num_frames=num_frames,
        frame_strides=read.numbers("pyramid.frame_strides", int),
        stage_fractions=read.numbers("pyramid.stage_fractions", float),
        **read.group(
            "pyramid",
            *("downsample", "upsample", "frame_positions", "target_unit", "time_conditioning"),
        ),
        other_num_frames=other_lengths,
    )


def _build_network(read: ConfigReader, dataset: ClipFacts, layout: mesh_lib.MeshLayout) -> Network:
    name = _choice(read, "model.name", MODELS)
    height, width, channels = dataset.frame_shape
    given_by_data = {
        "frame_height": height,
        "frame_width": width,
        "channels": channels,
        "num_classes": dataset.num_classes,
    }
    fields = read.rest_of_group("model", "name", "weights")
    constructor = functools.partial(MODELS[name], layout)
    return _construct(read, "model", constructor, fields | given_by_data)


def _build_train(read: ConfigReader, num_stages: int) -> TrainSpec:
    fields = read.group("train", *_names(TrainSpec))
    fields["stage_probs"] = validate_stage_probs(
        read.numbers("train.stage_probs", float), num_stages
    )
    return TrainSpec(**fields)


def _build_alignment(read: ConfigReader, train: TrainSpec) -> method.AlignmentSpec:
    spec = method.AlignmentSpec(
        **read.group("alignment", "mode", "level", "group_size", "num_candidates")
    )
    unit, factors = train.grad_accum_steps, f"train.grad_accum_steps={train.grad_accum_steps}"
    if spec.mode in ("nearest", "hungarian"):
        unit, factors = (
            unit * spec.group_size,
            f"{factors} * alignment.group_size={spec.group_size}",
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
    if not steps:
        steps = method.split_steps(num_steps, num_stages)
    scale, per_stage = (
        read("sample.guidance_scale"),
        read.numbers("sample.guidance_per_stage", float),
    )
    for field, values in (
        ("sample.steps_per_stage", steps),
        ("sample.guidance_per_stage", per_stage),
    ):
        if values and len(values) != num_stages:
            raise ValueError(f"{field}={values} must be () or have one entry a stage, {num_stages}")
    return method.SamplerSpec(
        steps_per_stage=steps,
        guidance_scale=per_stage or (scale,) * num_stages,
        **read.group("sample", "solver", "renoise"),
    )


def _build_generate(read: ConfigReader, group: str, *more: str) -> GenerateSpec:
    fields = read.group(group, "num_videos", "batch_size", "seed", *more)
    return GenerateSpec(group=group, **fields)


def _names(spec: type) -> list[str]:
    return [field.name for field in dataclasses.fields(spec)]


def _choice(read: ConfigReader, field: str, allowed: Any) -> str:
    value = read(field)
    method.check_choice(field, value, tuple(allowed))
    return value
