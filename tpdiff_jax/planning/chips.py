"""Published figures of accelerators: what a roofline divides by."""

import dataclasses

import jax

_CLOUD_TPU = "https://docs.cloud.google.com/tpu/docs/"
_NVIDIA = "https://www.nvidia.com/en-us/data-center/"
_GIB, _GB, _TFLOP = 2.0**30, 1e9, 1e12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One accelerator chip.

    Attributes:
        name: as in the first part of a topology name.
        kinds: how jax names its devices (`device_kind`).
        bf16_flops: peak of dense bfloat16 matrix products, FLOP/s.
        memory_bytes: HBM.
        memory_bandwidth: HBM, bytes/s.
        link_bandwidth: what one chip can send to others while it receives as much, all links
            together, bytes/s: half of the bidirectional figure that data sheets print.
        source: where the figures are published.
    """

    name: str
    kinds: tuple[str, ...]
    bf16_flops: float
    memory_bytes: float
    memory_bandwidth: float
    link_bandwidth: float
    source: str


CHIPS = (
    Chip(
        name="v5e",
        kinds=("TPU v5 lite", "TPU v5e"),
        bf16_flops=197 * _TFLOP,
        memory_bytes=16 * _GIB,
        memory_bandwidth=819 * _GB,
        link_bandwidth=200 * _GB,
        source=_CLOUD_TPU + "v5e",
    ),
    Chip(
        name="v5p",
        kinds=("TPU v5", "TPU v5p"),
        bf16_flops=459 * _TFLOP,
        memory_bytes=95 * _GIB,
        memory_bandwidth=2765 * _GB,
        link_bandwidth=600 * _GB,
        source=_CLOUD_TPU + "v5p",
    ),
    Chip(
        name="v6e",
        kinds=("TPU v6 lite", "TPU v6e"),
        bf16_flops=918 * _TFLOP,
        memory_bytes=32 * _GIB,
        memory_bandwidth=1638 * _GB,
        link_bandwidth=400 * _GB,
        source=_CLOUD_TPU + "v6e",
    ),
    Chip(
        name="tpu7x",
        kinds=("TPU7x",),
        bf16_flops=2307 * _TFLOP,
        memory_bytes=192 * _GIB,
        memory_bandwidth=7380 * _GB,
        link_bandwidth=600 * _GB,
        source=_CLOUD_TPU + "tpu7x",
    ),
    Chip(
        name="A100",
        kinds=("NVIDIA A100-SXM4-80GB",),
        bf16_flops=312 * _TFLOP,
        memory_bytes=80 * _GIB,
        memory_bandwidth=2039 * _GB,
        link_bandwidth=300 * _GB,
        source=_NVIDIA + "a100/",
    ),
    Chip(
        name="H100",
        kinds=("NVIDIA H100 80GB HBM3",),
        bf16_flops=989 * _TFLOP,
        memory_bytes=80 * _GIB,
        memory_bandwidth=3350 * _GB,
        link_bandwidth=450 * _GB,
        source=_NVIDIA + "h100/",
    ),
    Chip(
        name="H200",
        kinds=("NVIDIA H200",),
        bf16_flops=989 * _TFLOP,
        memory_bytes=141 * _GB,
        memory_bandwidth=4800 * _GB,
        link_bandwidth=450 * _GB,
        source=_NVIDIA + "h200/",
    ),
)


def chip_of_device_kind(kind: str) -> Chip | None:
    """Return the chip whose devices jax calls `kind`, or None when its figures are not known."""
    return next((chip for chip in CHIPS if kind in chip.kinds), None)


def device_memory(device: jax.Device) -> float | None:
    """Return what a program may use of a device that is here, in bytes.

    Args:
        device: of this process.

    Returns:
        The limit that it says it has, which on a GPU is what XLA sets aside, or else the memory
        that is published of its kind; None where neither is known.
    """
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return float(stats["bytes_limit"])
    chip = chip_of_device_kind(device.device_kind)
    return chip.memory_bytes if chip else None
