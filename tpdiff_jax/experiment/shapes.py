"""The shapes of a run's clips: of each, its data set and its pyramid.

Clips have one shape, or several where preparation sorted them into buckets. All shapes share the
windows of their stages, so that one network means the same by a noise time in each of them.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tpdiff_jax import method
from tpdiff_jax.checks import naming
from tpdiff_jax.clips.clip_copy import local_clips
from tpdiff_jax.data import (
    DATASETS,
    ClipFacts,
    ClipShape,
    Dataset,
    bucket_folders,
    clips_at_hand,
    to_frame_shape,
)
from tpdiff_jax.encoders import FIRST_LATENT_APART
from tpdiff_jax.experiment.reader import ConfigReader
from tpdiff_jax.method.time_sampling import TimeSampling
from tpdiff_jax.models import Network
from tpdiff_jax.types import Shape, Strides

PATHS = ("flow", "ddim")

_EVEN = 32  # rows and columns that the levels of U-Nets divide


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ClipsOfShape:
    """Clips of one shape.

    Attributes:
        bucket: name of the shape; "" where all clips have one.
        facts: the data set, or the shape alone of clips that are not at hand.
        pyramid: the stages of clips of this shape.
    """

    bucket: str
    facts: Dataset | ClipShape
    pyramid: method.Pyramid

    @property
    def dataset(self) -> Dataset:
        """The clips and their conditions.

        Raises:
            ValueError: when only their shape is at hand.
        """
        return clips_at_hand(self.facts)

    @property
    def video_shape(self) -> tuple[int, int, int, int]:
        """Frames, height, width and channels of a clip, at full rate and size."""
        return (self.facts.num_frames, *self.facts.frame_shape)

    def naming(self) -> contextlib.AbstractContextManager[None]:
        """Name the bucket, where there are several, in an error about its shape."""
        return _naming(self.bucket)


def _naming(bucket: str) -> contextlib.AbstractContextManager[None]:
    return naming(f"bucket {bucket} of data.folder" if bucket else "")


def build_datasets(
    read: ConfigReader,
    frame_shape: tuple[int, ...] | None = None,
    clips: Mapping[str, Dataset | ClipShape] | None = None,
) -> Mapping[str, Dataset | ClipShape]:
    """Return the data set of each bucket; one named "" where clips have one shape.

    Args:
        read: the config.
        frame_shape: (h, w, c) in place of the data set's, or (f, h, w, c) without any at hand.
        clips: taken as they are, in place of what the config names.

    Raises:
        ValueError: for a data set that cannot be opened, or fields that it does not have.
    """
    name = read.choice("data.name", DATASETS)
    fields = read.rest_of_group("data", "name", "num_threads")
    if clips is not None:
        return clips
    if frame_shape is not None and len(frame_shape) == 4:
        return {
            "": ClipShape(num_frames=frame_shape[0], frame_shape=to_frame_shape(frame_shape[1:]))
        }
    places = {"": fields}
    if "folder" in fields:
        with naming("data.folder"):
            here = local_clips(fields["folder"])
        folders = bucket_folders(here)
        places = {bucket: fields | {"folder": folder} for bucket, folder in folders.items()}
    datasets = {b: _construct(name, DATASETS[name], f) for b, f in places.items()}
    if frame_shape is None:
        return datasets
    dataset = next(iter(datasets.values()))
    only_shape = ClipShape(
        num_frames=dataset.num_frames,
        frame_shape=to_frame_shape(frame_shape),
        num_digits=dataset.num_digits,
        num_classes=dataset.num_classes,
    )
    return {"": only_shape}


def count_stages(read: ConfigReader) -> int:
    """Return the number of stages of a config, whatever its clips.

    Args:
        read: the config.

    Raises:
        ValueError: for a path, strides or a draw of times that no clips could have.
    """
    _build_path(read)
    _build_time_sampling(read)
    return len(_strides(read))


def stand_in_shape(read: ConfigReader) -> tuple[int, int, int, int]:
    """Return a shape that clips could have where those of a config are elsewhere.

    Args:
        read: the config.

    Returns:
        Frames, height, width and channels: few and even, so that little is refused for the shape's
        sake.

    Raises:
        ValueError: for strides that no clips could have.
    """
    frames, height, width = _strides(read)[0]
    means = read.given_of_group("pyramid", "data_mean")
    channels = len(read.numbers("pyramid.data_mean", float)) if means else 1
    patch = read.given_of_group("model", "patch_size").get("patch_size", 1)
    side = math.lcm(_EVEN, patch) if isinstance(patch, int) and patch > 0 else _EVEN
    return (2 * frames, side * height, side * width, channels if channels > 1 else 4)


def build_shapes(
    read: ConfigReader, datasets: Mapping[str, Dataset | ClipShape], network: Network
) -> tuple[ClipsOfShape, ...]:
    """Return the clips of each shape with its pyramid, checked against the network.

    Args:
        read: the config.
        datasets: by the name of the bucket.
        network: serves all of them.

    Raises:
        ValueError: for a pyramid that does not fit a shape, a shape of a stage or a condition
            that does not fit the network, or an upsampling that the latents do not allow.
    """
    shapes = []
    for bucket, dataset in datasets.items():  # each by itself: below, all shapes are checked
        _build_clips(read, bucket, dataset, ())
    for bucket, dataset in datasets.items():
        if isinstance(dataset, ClipShape):
            dataset = dataclasses.replace(dataset, encoded=network.cond_shapes)
        others = [_shape(other) for name, other in datasets.items() if name != bucket]
        clips = _build_clips(read, bucket, dataset, others)
        with clips.naming():
            _check_first_latent(read, clips)
            _check_condition(network, dataset)
            for stage in clips.pyramid.stages:
                network.check_shape(stage.shape, stage.strides)
        shapes.append(clips)
    return tuple(shapes)


def _build_clips(
    read: ConfigReader,
    bucket: str,
    facts: Dataset | ClipShape,
    other_shapes: Sequence[Shape],
) -> ClipsOfShape:
    """Clips of one shape, whose windows are those of all shapes."""
    with _naming(bucket):
        pyramid = method.make_pyramid(
            _build_path(read),
            shape=_shape(facts),
            strides=_strides(read),
            stage_fractions=read.numbers("pyramid.stage_fractions", float),
            downsample=_modes(read, "downsample"),
            upsample=_modes(read, "upsample"),
            **read.group(
                "pyramid",
                *("frame_positions", "target_unit", "time_conditioning", "stage_weighting"),
            ),
            **_time_shift(read, _shape(facts)),
            time_sampling=_build_time_sampling(read),
            **read.given_of_group("pyramid", "overlap", "line", "coarse_noise"),
            **_data_mean(read, facts.frame_shape[-1]),
            other_shapes=other_shapes,
        )
    return ClipsOfShape(bucket=bucket, facts=facts, pyramid=pyramid)


def _shape(facts: ClipFacts) -> Shape:
    height, width, _ = facts.frame_shape
    return facts.num_frames, height, width


def _strides(read: ConfigReader) -> tuple[Strides, ...]:
    """Strides of each stage: `pyramid.frame_strides` where given, else `pyramid.strides`."""
    strides, frame_strides = read("pyramid.strides"), read("pyramid.frame_strides")
    if frame_strides == ():
        return method.stage_strides(strides)
    return method.stage_strides(frame_strides, "pyramid.frame_strides")


def _time_shift(read: ConfigReader, shape: Shape) -> dict[str, Any]:
    """`pyramid.time_shift` of a shape: of `pyramid.time_shift_shape` where given, and else of all.

    s sqrt(f h w / (f_0 h_0 w_0)): the larger a clip, the more noise it takes to hide it.

    Source: Open-Sora 1.2's transform of the timesteps, over frames and resolution.
    """
    fields = read.given_of_group("pyramid", "time_shift", "time_shift_shape")
    if not fields.pop("time_shift_shape", ()):
        return fields
    of = read.numbers("pyramid.time_shift_shape", int)
    if len(of) != len(shape) or min(of) < 1:
        raise ValueError(
            f"pyramid.time_shift_shape={of} must be (), or frames, height and width, all above 0"
        )
    ratio = math.prod(shape) / math.prod(of)
    return {"time_shift": fields.get("time_shift", 1.0) * math.sqrt(ratio)}


def _build_time_sampling(read: ConfigReader) -> TimeSampling:
    """How training draws times; configs of earlier versions have none of its fields."""
    fields = read.given_of_group("train", "time_sampling", "logit_mean", "logit_std")
    if "time_sampling" in fields:
        fields["name"] = fields.pop("time_sampling")
    return TimeSampling(**fields)


def _data_mean(read: ConfigReader, num_channels: int) -> dict[str, Any]:
    """`pyramid.data_mean` where it is given: one number for all channels, or one for each."""
    fields = read.given_of_group("pyramid", "data_mean")
    if fields and len(means := read.numbers("pyramid.data_mean", float)) not in (1, num_channels):
        raise ValueError(
            f"pyramid.data_mean={means} must be one number for all channels, or one for each of "
            f"the {num_channels}"
        )
    return fields


def _modes(read: ConfigReader, what: str) -> tuple[str, str, str]:
    """How an axis is resampled: time, height, width."""
    in_space = read(f"pyramid.{what}_space")
    return read(f"pyramid.{what}"), in_space, in_space


def _build_path(read: ConfigReader) -> method.Path:
    ddim_fields = read.group("path", "betas", "zero_terminal_snr", "final_alpha")
    ddim_fields |= read.given_of_group("path", "beta_start", "beta_end")
    prediction = read("path.prediction")
    if read.choice("path.name", PATHS) == "flow":
        return method.FlowPath(prediction=prediction)
    return method.DDIMPath(prediction=prediction, **ddim_fields)


def _construct(name: str, constructor: Callable[..., Any], fields: dict[str, Any]) -> Any:
    """Call a registered constructor; a field that it lacks is the user's mistake."""
    try:
        return constructor(**fields)
    except TypeError as error:
        raise ValueError(f"fields of data do not fit data.name={name!r}: {error}") from error


def _check_first_latent(read: ConfigReader, clips: ClipsOfShape) -> None:
    """Raise ValueError where a stage would copy the code of one frame into that of several."""
    strides = [stage.strides[0] for stage in clips.pyramid.stages]
    if isinstance(clips.facts, ClipShape) or max(strides) == 1:
        return
    name = clips.facts.encoders["video"]["name"]
    if name in FIRST_LATENT_APART and read("pyramid.upsample") == "nearest":
        raise ValueError(
            "pyramid.upsample='nearest' would copy the first latent, the code of one frame and not "
            f"of several where prepare.video_encoder={name!r}; allowed: nearest_next, linear, "
            "insert"
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
