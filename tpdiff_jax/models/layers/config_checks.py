"""Checks that all networks share; errors name the field as the user wrote it."""

from collections.abc import Iterable
from typing import Any

from tpdiff_jax import checks
from tpdiff_jax.types import Shape, Strides

MAX_MLP_RATIO = 1000.0  # of published networks: 4 to 8


def check_positive(config: Any, *fields: str) -> None:
    """Raise ValueError unless every field is above zero."""
    for field in fields:
        checks.check_above(f"model.{field}", getattr(config, field), 0)


def check_config_choice(config: Any, field: str, allowed: Iterable[str]) -> None:
    """Refuse a field that is not one of the allowed names.

    Args:
        config: of a network.
        field: name of the field.
        allowed: the names that exist.

    Raises:
        ValueError: naming `model.FIELD`, its value and the allowed names.
    """
    checks.check_choice(f"model.{field}", getattr(config, field), allowed)


def check_feed_forward(config: Any) -> None:
    """Raise ValueError unless the feed-forward layers have a hidden unit, and a width to count."""
    checks.check_range("model.mlp_ratio", config.mlp_ratio, 0, MAX_MLP_RATIO, "(]")
    if config.feed_forward_dim < 1:
        raise ValueError(
            f"model.mlp_ratio leaves no hidden unit of {config.hidden_size} channels, "
            f"got {config.mlp_ratio}"
        )


def check_sides(shape: Shape, strides: Strides, unit: int, field: str, value: Any) -> None:
    """Check that the frames of a stage can be cut as a field of the config says.

    Args:
        shape: frames, height and width of the stage.
        strides: of the stage, to name what made its frames small.
        unit: what must divide height and width.
        field: of the config group `model`.
        value: of that field.

    Raises:
        ValueError: naming the field, the side and what is allowed.
    """
    for name, side, stride in zip(("height", "width"), shape[1:], strides[1:], strict=True):
        if side < 1 or side % unit:
            stage = f" in the stage of strides {strides} of pyramid.strides" if stride > 1 else ""
            raise ValueError(
                f"model.{field}={value} needs frames of a {name} that is a multiple of {unit}, "
                f"the data's have {side}{stage}"
            )
