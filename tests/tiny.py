"""The default configs shrunk until a test takes seconds; nothing about the method changes."""

import pathlib
from typing import Any

from ml_collections import ConfigDict

from configs import ddim, flow

SIZES: dict[str, Any] = {
    "data.num_frames": 8,
    "model.hidden_size": 32,
    "model.depth": 1,
    "model.num_heads": 2,
    "model.patch_size": 8,
    "model.scan_layers": True,  # as large networks have it
    "alignment.group_size": 8,
    "optim.name": "adamw",
    "optim.learning_rate": 1e-3,
    "optim.warmup_steps": 2,
    "train.num_steps": 6,
    "train.batch_size": 8,
    "train.log_every_steps": 2,
    "train.checkpoint_every_steps": 3,
    "train.sample_every_steps": 0,
    "train.eval_every_steps": 0,
    "sample.num_steps": 3,
    "sample.num_videos": 2,
    "sample.batch_size": 8,
    "eval.num_videos": 8,
    "eval.batch_size": 8,
}


def tiny_config(path: str = "flow", **overrides: Any) -> ConfigDict:
    """Return a small config; overrides are given as `group__field=value`."""
    config = {"flow": flow, "ddim": ddim}[path].get_config()
    for name, value in SIZES.items():
        set_field(config, name, value)
    for name, value in overrides.items():
        set_field(config, name.replace("__", "."), value)
    return config


def set_field(config: ConfigDict, name: str, value: Any) -> None:
    """Set `group.field`."""
    group, field = name.split(".")
    config[group][field] = value


def flags_of_sizes() -> list[str]:
    """Return the same overrides as command-line flags."""
    return [f"--config.{name}={value}" for name, value in SIZES.items()]


REPO = pathlib.Path(__file__).resolve().parents[1]
