"""Sampling through another pyramid than the network was trained with, without training.

A network that has learned ordinary diffusion, at one rate or at that of each stage
(`pyramid.line="marginal"`), answers at every noise time for the video that it sees. Stages of fewer
frames are then videos of a lower rate to it, and each jump hands on a start that lacks the detail
of the next stage: the law is right as far as that detail is below the noise there.

A network trained stage by stage (`pyramid.line="stagewise"`, several stages) has learned the lines
of its own stages and no others; it can be sampled through these alone.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from tpdiff_jax import method
from tpdiff_jax.checks import counted, naming
from tpdiff_jax.experiment.build import Experiment, build_experiment
from tpdiff_jax.generation.pyramid_text import (
    OF_SAMPLING,
    TOLD_STRIDES,
    pyramid_name,
    read_pyramid,
)
from tpdiff_jax.generation.sampler import Sampler
from tpdiff_jax.types import Strides

VANILLA_PYRAMID: Mapping[str, Any] = {"frame_strides": (1,)}
"""Fields of the group `pyramid` of a network that others have trained."""
_FULL: Strides = (1, 1, 1)
_EMBED_STRIDES = ("video_dit",)  # networks with parameters of the strides they were trained on
_PLAIN_UNITS = {"target_unit": "time", "time_conditioning": "noise_time"}


class OtherPyramid(NamedTuple):
    """What a run is sampled through.

    Attributes:
        name: for folders and files.
        fields: as asked for.
        own: the run with the pyramid that it was trained with.
        experiment: the run with this one.
    """

    name: str
    fields: Mapping[str, Any]
    own: Experiment
    experiment: Experiment

    @property
    def suffix(self) -> str:
        """What names of folders and files end in."""
        return f"_pyramid_{self.name}"

    def cost(self) -> dict[str, Any]:
        """Return what sampling costs: the request, network calls, and FLOPs against its own."""
        own, other = self.own, self.experiment
        return {
            "name": self.name,
            "fields": dict(self.fields),
            "calls": sum(other.sampler.steps_per_stage),
            "own_calls": sum(own.sampler.steps_per_stage),
            "flops_ratio": Sampler(other).flops() / Sampler(own).flops(),
        }


def make_other_pyramid(
    own: Experiment,
    asked: str | Mapping[str, Any] | Sequence[Any] | int,
    trained: Mapping[str, Any] | None = None,
) -> OtherPyramid:
    """Return a run as it is sampled and evaluated through another pyramid.

    Args:
        own: the run.
        asked: strides, as in "4,2,1" or (4, 2, 1), or fields of the config group `pyramid` and
            those of `sample` that have one entry a stage, as in "strides=(4,2,1) upsample=linear".
        trained: fields of the group `pyramid` that the parameters were trained with, where the
            run's config says others.

    Raises:
        ValueError: when fields or stages do not fit the network or its clips, or the network was
            trained for its own stages alone.
    """
    fields = read_pyramid(asked)
    if trained is not None:
        own = _rebuilt(own, _changed(own, {"frame_strides": (), **trained}))
    pyramid = {name: value for name, value in fields.items() if not _is_of_sampling(name)}
    with naming("--pyramid"):
        other = _rebuilt(own, _changed(own, pyramid, fields))
    if not _is_ordinary(own):
        _check_same_stages(own, other, pyramid)
    elif own.pyramid.num_stages > 1:
        _check_units(own)
        _warn_of_windows(own.pyramid, other.pyramid)
    if _tells_full(own, fields):
        other = dataclasses.replace(other, told_strides=_FULL)
    name = pyramid_name([stage.strides for stage in other.pyramid.stages], fields)
    made = OtherPyramid(name, fields, own, other)
    cost = made.cost()
    logging.info(
        "sampling through pyramid %s: %s, %.3g of the FLOPs of the run's own %d",
        *(name, counted(cost["calls"], "network call"), cost["flops_ratio"], cost["own_calls"]),
    )
    return made


def _is_of_sampling(name: str) -> bool:
    return name in OF_SAMPLING or name == TOLD_STRIDES


def _is_ordinary(own: Experiment) -> bool:
    """Whether each stage was trained as ordinary diffusion of its own video."""
    is_marginal = own.config.pyramid.get("line", "stagewise") == "marginal"
    return own.pyramid.num_stages == 1 or is_marginal


def _check_units(own: Experiment) -> None:
    """Refuse a network whose units depend on its stages."""
    for name, plain in _PLAIN_UNITS.items():
        if (value := own.config.pyramid[name]) != plain:
            raise ValueError(
                f"--pyramid: the run was trained with pyramid.{name}={value!r}, so that what its "
                "network is asked depends on its own stages; allowed: a run of one stage, or with "
                f"{plain!r}"
            )


def _changed(
    own: Experiment, pyramid: Mapping[str, Any], sampling: Mapping[str, Any] | None = None
) -> ConfigDict:
    """The run's config with other fields of the pyramid, and what goes by stages made to fit."""
    fields = own.config.to_dict()
    if "strides" in pyramid:
        fields["pyramid"]["frame_strides"] = ()
    if own.pyramid.num_stages == 1:
        fields["pyramid"] |= _PLAIN_UNITS
        if "line" in fields["pyramid"]:
            fields["pyramid"]["line"] = "marginal"
        if "coarse_noise" in fields["pyramid"]:
            fields["pyramid"]["coarse_noise"] = 0.0  # of training, which had no stage before
    fields["pyramid"] |= pyramid
    strides, before = _strides(fields["pyramid"]), [stage.strides for stage in own.pyramid.stages]
    if strides != before and "stage_fractions" not in pyramid:
        fields["pyramid"]["stage_fractions"] = ()
    fields["train"]["stage_probs"] = ()
    if len(strides) != len(before):
        _clear_stages(fields["sample"], len(before))
    more = sampling or {}
    fields["sample"] |= {name: more[name] for name in OF_SAMPLING if name in more}
    return ConfigDict(fields)


def _strides(pyramid: Mapping[str, Any]) -> list[Strides]:
    """Strides that the fields of the config group say."""
    return list(method.stage_strides(pyramid["frame_strides"] or pyramid["strides"]))


def _clear_stages(sample: dict[str, Any], num_stages: int) -> None:
    """Drop what has an entry for each stage of another pyramid; network calls in all stay."""
    grids = sample.pop("time_grids", ())
    steps = sample["steps_per_stage"] or [len(grid) - 1 for grid in grids]
    if steps:
        sample["num_steps"] = sum(steps)
    sample["steps_per_stage"] = ()
    if scales := sample["guidance_per_stage"]:
        sample["guidance_per_stage"] = ()
        sample["guidance_scale"] = scales[-1]  # of the full video
    if len(powers := sample.get("grid_power", (1.0,))) > 1 and len(powers) == num_stages:
        sample["grid_power"] = (1.0,)


def _rebuilt(own: Experiment, config: ConfigDict) -> Experiment:
    """The experiment of another config, on the same clips and devices.

    Where strides stay, the windows are those of all the run's buckets, as in training.
    """
    is_same = _strides(config.pyramid) == [stage.strides for stage in own.pyramid.stages]
    shapes = own.shapes + (own.other_shapes if is_same else ())
    clips = {one.bucket: one.dataset for one in shapes}
    devices = list(own.mesh.devices.flat)
    made = build_experiment(config, devices, clips=clips, is_for_training=False)
    return made.of_bucket(own.shapes[0].bucket) if own.other_shapes else made


def _check_same_stages(own: Experiment, other: Experiment, pyramid: Mapping[str, Any]) -> None:
    """Refuse stages that the network was not trained for."""
    stages = [one.pyramid.stages for one in (own, other)]
    if len(stages[0]) == len(stages[1]) and all(map(_is_same_stage, *stages)):
        return
    named = ", ".join(f"pyramid.{name}={value!r}" for name, value in pyramid.items())
    strides = [stage.strides[0] if stage.strides[1:] == (1, 1) else stage.strides
               for stage in own.pyramid.stages]  # fmt: skip
    raise ValueError(
        f"--pyramid: {named} is another pyramid than the run was trained with, stage by stage "
        f"(strides {', '.join(map(str, strides))}): its network knows the lines of its own stages "
        "alone; allowed: time_shift, and fields of sampling such as steps_per_stage. Any pyramid "
        "goes with a run trained with pyramid.frame_strides=(1,) or pyramid.line='marginal'"
    )


def _is_same_stage(one: method.Stage, other: method.Stage) -> bool:
    numbers = [(stage.strides, stage.t_start, stage.t_end) for stage in (one, other)]
    arrays = [[*stage.positions, *stage.downsample.matrices] for stage in (one, other)]
    for stage, own in zip((one, other), arrays, strict=True):
        if stage.jump is not None:
            own += [*stage.jump.upsample.matrices, np.asarray(stage.jump.data_mean)]
    return numbers[0] == numbers[1] and all(map(np.array_equal, *arrays))


def _warn_of_windows(own: method.Pyramid, other: method.Pyramid) -> None:
    """Say which stages ask a network for noise times at which it was not trained at that rate."""
    trained = {stage.strides: stage for stage in own.stages}
    for stage in other.stages:
        known = trained.get(stage.strides)
        if known is None:
            logging.warning("--pyramid: strides %s were not trained", stage.strides)
        elif stage.t_start > known.t_start + 1e-6 or stage.t_end < known.t_end - 1e-6:
            logging.warning(
                "--pyramid: strides %s run from noise time %.3f to %.3f, trained were %.3f to %.3f",
                *(stage.strides, stage.t_start, stage.t_end, known.t_start, known.t_end),
            )


def _tells_full(own: Experiment, fields: Mapping[str, Any]) -> bool:
    """Whether the network hears of the full video's strides in every stage.

    What a network of one stage has learned to hear of strides is theirs; the positions of frames,
    rows and columns, and frame rates in published networks, are known to it at other strides too.
    """
    is_unknown = own.config.model.name in _EMBED_STRIDES and own.pyramid.num_stages == 1
    return fields.get(TOLD_STRIDES, "full" if is_unknown else "stage") == "full"
