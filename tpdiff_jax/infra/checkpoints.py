"""Checkpoints: asynchronous save, restore of the newest one that can be read.

`checkpoints/STEP/` is named by completed steps and holds the whole `TrainState` and a small JSON
of running totals. The data position is the step itself, because batch t is a pure function of
(seed, t); random keys are functions of (seed, step). So a checkpoint needs nothing else for a
resumed run to equal an uninterrupted one bit for bit.
"""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint import checkpoint_managers


class Restored(NamedTuple):
    """A restored checkpoint: completed steps, state, running totals."""

    step: int
    state: Any
    totals: dict[str, float]


class CheckpointError(ValueError):
    """No checkpoint could be read."""


class Checkpoints:
    """The checkpoints of one workdir."""

    def __init__(self, workdir: str | pathlib.Path, *, keep: int = 3, create: bool = True) -> None:
        """Open `workdir/checkpoints`.

        Args:
            workdir: the run's folder.
            keep: newest checkpoints to keep, at least 1; the latest is never deleted.
            create: make the folder when it is missing.

        Raises:
            CheckpointError: when the folder is missing and `create` is false.
        """
        self.path = pathlib.Path(workdir).resolve() / "checkpoints"
        if not create and not self.path.is_dir():
            raise CheckpointError(f"no checkpoints in {workdir}: {self.path} does not exist")
        policy = checkpoint_managers.LatestN(keep)
        options = ocp.CheckpointManagerOptions(preservation_policy=policy, create=create)
        self._manager = ocp.CheckpointManager(self.path, options=options)

    def steps(self) -> list[int]:
        """Return the listed steps, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, totals: Mapping[str, float]) -> None:
        """Start saving; errors of an earlier save surface here or in `poll`."""
        if step in self._manager.all_steps():
            return
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state), totals=ocp.args.JsonSave(dict(totals))
        )
        self._manager.save(step, args=args, force=True)

    def poll(self) -> None:
        """Raise the error of a background save that has failed."""
        self._manager.check_for_errors()

    def restore(self, abstract_state: Any, step: int | None = None) -> Restored | None:
        """Restore `step`, or the newest checkpoint that can be read.

        Args:
            abstract_state: `jax.ShapeDtypeStruct` leaves with the shardings to restore to.
            step: a step to insist on.

        Returns:
            The checkpoint, or None when the folder holds none.

        Raises:
            CheckpointError: when checkpoints exist but none (or not the wanted one) can be read.
        """
        if step is not None and step not in self.steps():
            raise CheckpointError(f"no checkpoint of step {step} in {self.path}: {self.steps()}")
        candidates = [step] if step is not None else self.steps()[::-1]
        failures = []
        for candidate in candidates:
            try:
                return self._restore_step(candidate, abstract_state)
            except Exception as error:  # noqa: BLE001 orbax raises many types on damaged files
                failures.append(f"step {candidate}: {_first_line(error)}")
                logging.warning("cannot read checkpoint %s", failures[-1])
        if failures:
            raise CheckpointError(f"no readable checkpoint in {self.path}: " + "; ".join(failures))
        return None

    def _restore_step(self, step: int, abstract_state: Any) -> Restored:
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract_state), totals=ocp.args.JsonRestore()
        )
        restored = self._manager.restore(step, args=args)
        return Restored(step, restored["state"], dict(restored["totals"]))

    def wait(self) -> None:
        """Wait until running saves are on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait and release."""
        self._manager.close()


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200] if text else ''}"
