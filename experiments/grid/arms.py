"""An arm is a config file and the fields it changes; a grid is arms that share a budget."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """One thing to compare.

    Attributes:
        name: in tables, figures and folder names.
        overrides: `group.field` -> value; they win over the command line's.
        config: config file, from the repository root.
        baseline: name of the arm that this one is compared with; None for a baseline.
    """

    name: str
    overrides: Mapping[str, Any]
    config: str = "configs/flow.py"
    baseline: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """Arms that share a budget.

    Attributes:
        arms: what is compared.
        reference: arm whose `train.num_steps` is taken as given and sets the FLOPs of all.
    """

    arms: tuple[Arm, ...]
    reference: str

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError(f"arms share a name: {names}")
        for name in [self.reference, *(arm.baseline for arm in self.arms if arm.baseline)]:
            if name not in names:
                raise ValueError(f"no arm is called {name}; there are {', '.join(names)}")

    def arm(self, name: str) -> Arm:
        """Return the arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)


def ablation(
    base: Mapping[str, Any],
    changes: Mapping[str, Mapping[str, Any]],
    baselines: Mapping[str, str] | None = None,
    **arm: Any,
) -> Grid:
    """Return a grid of a base arm and one arm for each change of it.

    Args:
        base: overrides of every arm.
        changes: name of an arm -> what it changes.
        baselines: name of an arm -> the arm it is compared with, where that is not the base.
        **arm: further fields of every arm.
    """
    baselines = baselines or {}
    changed = tuple(
        Arm(
            name=name,
            overrides={**base, **change},
            baseline=baselines.get(name, "base"),
            **arm,
        )
        for name, change in changes.items()
    )
    return Grid(arms=(Arm(name="base", overrides=base, **arm), *changed), reference="base")
