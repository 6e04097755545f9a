"""Checks that the configs of all networks share; errors name the field as the user wrote it."""

from collections.abc import Iterable
from typing import Any

from tpdiff_jax import checks


def check_positive(config: Any, *fields: str) -> None:
    """Raise ValueError unless every field is above zero."""
    for field in fields:
        checks.check_above(f"model.{field}", getattr(config, field), 0)


def check_choice(config: Any, field: str, allowed: Iterable[str]) -> None:
    """Raise ValueError unless the field is one of the allowed names."""
    checks.check_choice(f"model.{field}", getattr(config, field), allowed)


def check_feed_forward(config: Any) -> None:
    """Raise ValueError unless the feed-forward layers have a hidden unit."""
    if config.feed_forward_dim < 1:
        raise ValueError(
            f"model.mlp_ratio leaves no hidden unit of {config.hidden_size} channels, "
            f"got {config.mlp_ratio}"
        )


def check_patch_size(config: Any) -> None:
    """Raise ValueError unless frames can be cut into patches."""
    for field in ("frame_height", "frame_width"):
        if getattr(config, field) % config.patch_size:
            raise ValueError(
                f"model.patch_size must divide {field} {getattr(config, field)}, "
                f"got {config.patch_size}"
            )
