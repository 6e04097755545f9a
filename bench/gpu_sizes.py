"""The sizes at which `bench.gpu_suite` measures: `h200` fits 139 GiB, `toy` a test on a CPU."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from experiments.table1 import SYSTEMS, TimedSystem

Overrides = Mapping[str, Any]
DIT = "configs/dit_2b.py"
_ONE_DEVICE: Overrides = {"mesh.data": 1, "mesh.fsdp": 1}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """What the parts measure.

    Attributes:
        attention: (samples, tokens, heads, channels of a head, whether some keys are hidden).
        kernels: `model.attention_kernel` of a network, the next where one fails.
        dit: fields of configs/dit_2b.py, for steps and their memory.
        dit_shape: frames, height, width and channels of its latents.
        systems: whose sampling, and whose training, is timed: name -> config and latents.
        system_fields: fields of each of them.
        batch: clips of a training step of the systems.
        pytorch: options of bench.pytorch.
        resume: fields of configs/flow.py, for the run that is stopped and resumed.
        resume_steps: completed steps at the stop, and at the end.
        rounds: at most, of whatever is timed.
    """

    attention: tuple[tuple[int, int, int, int, bool], ...]
    kernels: tuple[str, ...]
    dit: Overrides
    dit_shape: tuple[int, ...]
    systems: Mapping[str, TimedSystem]
    system_fields: Mapping[str, Overrides]
    batch: int
    pytorch: Overrides
    resume: Overrides
    resume_steps: tuple[int, int]
    rounds: int


def batch_fields(batch: int) -> dict[str, Any]:
    """Return the fields that make every batch one of this size on one device."""
    names = ("train.batch_size", "alignment.group_size", "sample.batch_size", "eval.batch_size")
    return {**_ONE_DEVICE, **dict.fromkeys(names, batch)}


H200 = Size(
    # Heads of the video DiT and Wan (128), miniFLUX (64), AnimateDiff's levels (40, 80, 160).
    attention=(
        (4, 256, 8, 64, False),
        (2, 1_000, 8, 128, False),
        (2, 1_024, 8, 40, False),
        (2, 1_024, 8, 80, False),
        (2, 1_024, 8, 160, False),
        (2, 3_968, 8, 64, True),
        (1, 8_190, 4, 128, False),
        (1, 15_360, 4, 128, False),
    ),
    kernels=("auto", "xla"),
    # 1.2 billion parameters: a state for each twin and a gradient take 42 GiB, what a step keeps
    # about 36 GiB.
    dit={"model.depth": 16, "model.remat": "dots", **batch_fields(4)},
    dit_shape=(16, 48, 80, 16),
    systems={name: SYSTEMS[name] for name in ("miniflux", "wan", "animatediff")},
    system_fields={},
    batch=2,
    pytorch={"heads": 24, "blocks": (6, 6), "frames": 16, "frame_size": 256, "batch": 2},
    resume={
        "model.hidden_size": 512, "model.num_heads": 8, "model.depth": 6, "model.patch_size": 4,
        "model.attention": "joint", "model.dtype": "bfloat16",
    },
    resume_steps=(4, 8),
    rounds=7,
)  # fmt: skip

_SHORT: Overrides = {
    "model.dtype": "float32", "pyramid.strides": (2, 1), "sample.num_steps": 2,
}  # fmt: skip
TOY = Size(
    attention=((1, 130, 2, 8, False), (2, 160, 1, 16, True)),
    kernels=("auto",),
    dit={
        "model.depth": 1, "model.hidden_size": 32, "model.num_heads": 2, "model.remat": "dots",
        "pyramid.strides": (2, 1), **batch_fields(2),
    },
    dit_shape=(4, 4, 4, 4),
    systems={
        "animatediff": SYSTEMS["animatediff"]._replace(frame_shape=(4, 8, 8, 4)),
        "miniflux": SYSTEMS["miniflux"]._replace(frame_shape=(4, 4, 4, 16)),
        "wan": SYSTEMS["wan"]._replace(frame_shape=(4, 4, 4, 16)),
    },
    system_fields={
        "animatediff": {
            **_SHORT, "model.level_channels": (8,), "model.level_depth": 1, "model.num_heads": 2,
            "model.num_groups": 4, "model.text_dim": 8, "model.num_text_tokens": 3,
        },
        "miniflux": {
            **_SHORT, "model.num_heads": 1, "model.num_double_blocks": 1,
            "model.num_single_blocks": 1, "model.text_dim": 8, "model.num_text_tokens": 3,
            "model.pooled_dim": 8,
        },
        "wan": {
            **_SHORT, "model.num_heads": 1, "model.head_dim": 12, "model.depth": 1,
            "model.feed_forward_dim": 16, "model.text_dim": 8, "model.num_text_tokens": 3,
        },
    },
    batch=2,
    pytorch={"heads": 1, "blocks": (1, 1), "frames": 2, "frame_size": 16, "batch": 1},
    resume={
        "data.num_frames": 4, "model.hidden_size": 32, "model.depth": 1, "model.num_heads": 2,
        "pyramid.strides": (2, 1), "optim.name": "adamw",
    },
    resume_steps=(2, 3),
    rounds=2,
)  # fmt: skip

SIZES = {"h200": H200, "toy": TOY}
