"""Devices to compile for: slices of TPUs that are not here, host devices, or what is here.

v5p:4x4x4    64 chips of TPU v5p, by the real TPU compiler in libtpu; no TPU is touched
cpu:8        8 host devices
local        the devices of this machine
"""

import importlib.util
import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from tpdiff_jax.planning.chips import CHIPS, Chip, chip_of_device_kind, device_memory

_TPU_NAMES = tuple(chip.name for chip in CHIPS if chip.kinds[0].startswith("TPU"))
_TPU_ENVIRONMENT = {
    # Without these, libtpu asks the metadata server of a cloud machine what it runs on.
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    # Without this, a second process that compiles at the same time aborts on a lock file.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


class Target(NamedTuple):
    """A machine to compile for.

    Attributes:
        name: as given on the command line.
        devices: its devices, as jax counts them.
        num_chips: chips; some have two devices.
        chip: published figures of a chip; None when they are not known, as for host devices.
    """

    name: str
    devices: list[jax.Device]
    num_chips: int
    chip: Chip | None

    @property
    def memory_bytes(self) -> float | None:
        """Memory of one device, or None when it is not known."""
        if self.name == "local":
            return device_memory(self.devices[0])
        if self.chip is not None:
            return self.chip.memory_bytes * self.num_chips / len(self.devices)
        return None

    def facts(self) -> dict[str, Any]:
        """What the plan says about the machine."""
        return {
            "name": self.name,
            "num_chips": self.num_chips,
            "num_devices": len(self.devices),
            "device_kind": self.devices[0].device_kind,
        }


def open_target(name: str) -> Target:
    """Return the machine called `name`; call it before anything else uses jax.

    Raises:
        ValueError: for an unknown name, or when what it needs is not installed.
    """
    family, _, shape = name.partition(":")
    if name == "local":
        return _target(name, jax.devices())
    if family == "cpu" and re.fullmatch(r"[1-9]\d*", shape):
        return _target(name, _host_devices(int(shape)))
    if family in _TPU_NAMES and re.fullmatch(r"\d+(x\d+){1,2}", shape):
        return _target(name, _tpu_devices(name))
    tpus = ", ".join(f"{tpu}:XxY" for tpu in _TPU_NAMES)
    raise ValueError(
        f"--topology={name} must be local, cpu:N, or a TPU slice such as v5p:4x4x4 or v5e:2x4 "
        f"({tpus}; v5p and tpu7x have three dimensions)"
    )


def _host_devices(count: int) -> list[jax.Device]:
    jax.config.update("jax_platforms", "cpu")
    _unless_started("jax_num_cpu_devices", count)
    devices = jax.devices()
    if len(devices) != count:
        raise ValueError(f"--topology=cpu:{count}: jax has already started, on {len(devices)}")
    return devices


def _unless_started(option: str, value: int) -> None:
    """Set an option that jax refuses to change once its devices exist."""
    try:
        jax.config.update(option, value)
    except RuntimeError:
        return


def _tpu_devices(name: str) -> list[jax.Device]:
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            f"--topology={name} needs the TPU compiler, libtpu; install it with: "
            f'pip install "jax[tpu]=={jax.__version__}"'
        )
    jax.config.update("jax_platforms", "cpu")  # what little runs while planning runs here
    for variable, value in _TPU_ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    get: Callable[..., topologies.TopologyDescription] = topologies.get_topology_desc
    try:
        return list(get(platform="tpu", topology_name=name).devices)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--topology={name} is no slice that libtpu knows: {reason}") from error


def _target(name: str, devices: list[jax.Device]) -> Target:
    """Count chips by place: some chips hold two devices, which then have the same coordinates."""
    places = {tuple(getattr(device, "coords", None) or (device.id,)) for device in devices}
    return Target(name, devices, len(places), chip_of_device_kind(devices[0].device_kind))
