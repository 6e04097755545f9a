"""Checkpoints: saved, hashed and pruned in the background; restored only when every byte is right.

`checkpoints/STEP/` is named by completed steps and holds the whole `TrainState` and a small JSON
of running totals. The data position is the step itself, because batch t is a pure function of
(seed, t); random keys are functions of (seed, step). So a checkpoint needs nothing else for a
resumed run to equal an uninterrupted one bit for bit.

A save goes: copy to host memory (the only part that training waits for) -> files in STEP.saving ->
manifest -> rename to STEP -> removal of old ones. Killed anywhere in between, the run resumes from
the step before.
"""

import concurrent.futures
import contextlib
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from tpdiff_jax.run_folder import checkpoint_folder
from tpdiff_jax.run_folder.array_facts import describe_arrays
from tpdiff_jax.run_folder.checkpoint_manifest import (
    CheckpointError,
    DamagedCheckpointError,
    Identity,
    checkpoint_versions,
    first_line,
    identify_save,
    read_checkpoint_manifest,
    verify,
    write_checkpoint_manifest,
)
from tpdiff_jax.run_folder.cores import usable_cores
from tpdiff_jax.run_folder.fit import check_fits, describe_other_machine
from tpdiff_jax.run_folder.orbax_saver import close_checkpointer, open_checkpointer

_NO_STEP, _NONE_INTACT = -1, -2
_COUNTED = "counted_rejections"
"""Among a checkpoint's totals: by step, which later saves are counted as damaged already."""


class Restored(NamedTuple):
    """A restored checkpoint.

    Attributes:
        step: completed steps.
        state: the state, on the devices.
        totals: running totals, as they were saved.
        rejected: what was wrong with newer checkpoints, one text each; known to process 0.
    """

    step: int
    state: Any
    totals: dict[str, Any]
    rejected: tuple[str, ...] = ()


class SaveError(Exception):
    """A checkpoint could not be written; the ones before it are untouched."""


class Checkpoints:
    """The checkpoints of one workdir.

    Attributes:
        num_rejected: checkpoints found damaged, over the whole run, each save once.
        num_failed_removals: old checkpoints that could not be removed, over the whole run.
    """

    def __init__(
        self,
        workdir: str | pathlib.Path,
        *,
        identity: Identity | None = None,
        keep: int = 3,
        create: bool = True,
        later: bool = False,
    ) -> None:
        """Open `workdir/checkpoints`.

        Args:
            workdir: the run's folder.
            identity: the run; None neither records nor compares it.
            keep: newest checkpoints to keep, at least 1.
            create: make the folder when it is missing, and remove what interrupted saves left.
            later: do so in `make_ready` only, for a run that may still be refused.

        Raises:
            CheckpointError: when the folder is missing and `create` is false.
        """
        self.path = pathlib.Path(workdir).resolve() / "checkpoints"
        self.num_rejected = self.num_failed_removals = 0
        self._identity, self._keep = identity, keep
        self._rejected: dict[int, str] = {}  # step -> what is wrong with it
        self._counted: dict[str, str] = {}  # step -> the save that `num_rejected` holds
        self._checkpointer = open_checkpointer()
        self._background = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._running: concurrent.futures.Future[None] | None = None
        if create and not later:
            self.make_ready()
        elif not create and not self.path.is_dir():
            raise CheckpointError(f"no checkpoints in {workdir}: {self.path} does not exist")

    def make_ready(self) -> None:
        """Make the folder and remove what interrupted saves left there, before the first save."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._remove_leftovers()

    def steps(self) -> list[int]:
        """Return the steps on disk, damaged ones too, oldest first."""
        return checkpoint_folder.list_steps(self.path)

    def counts(self) -> dict[str, int]:
        """Return what went wrong and was survived, over the whole run."""
        return {
            "rejected_checkpoints": self.num_rejected,
            "failed_checkpoint_removals": self.num_failed_removals,
        }

    def check_free_space(self, abstract_state: Any) -> None:
        """Raise ValueError when the checkpoints of a run with this state would not fit."""
        leaves = jax.tree.leaves(abstract_state)
        state_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
        checkpoint_folder.check_free_space(self.path, state_bytes=state_bytes, keep=self._keep)

    # ---- save

    def save(self, step: int, state: Any, totals: Mapping[str, Any]) -> None:
        """Start saving; waits only for an earlier save and for the copy to host memory.

        Args:
            step: completed steps, which names the folder.
            state: pytree of arrays on their devices.
            totals: the run's counts so far, as JSON holds them.

        Raises:
            SaveError: when this save cannot start or an earlier one has failed.
        """
        self.wait()
        # Only later steps are looked at before this one is restored.
        counted = {later: save for later, save in self._counted.items() if int(later) > step}
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            totals=ocp.args.JsonSave({**totals, **self.counts(), _COUNTED: counted}),
        )
        with self._reported(step):
            self._checkpointer.save(self._saving(step), args=args, force=True)
        self._running = self._background.submit(self._finish, step, describe_arrays(state))

    def poll(self) -> None:
        """Raise the SaveError of a background save that has failed."""
        if self._running is not None and self._running.done():
            self.wait()

    def wait(self) -> None:
        """Wait until a running save is on disk under its final name.

        Raises:
            SaveError: when it has failed.
        """
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def close(self) -> None:
        """Wait and release.

        Raises:
            SaveError: when a save that was running has failed.
        """
        try:
            self.wait()
        finally:
            self._background.shutdown()
            close_checkpointer(self._checkpointer)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close; what the loop ends with is not replaced by a save that fails as well."""
        try:
            self.close()
        except SaveError as error:
            if kind is None:
                raise
            logging.error("%s", error)

    def _finish(self, step: int, arrays: Mapping[str, str]) -> None:
        """In the background: wait for the files, write the manifest, rename, remove old ones."""
        with self._reported(step):
            self._checkpointer.wait_until_finished()
            if jax.process_index() != 0:
                return
            facts: dict[str, Any] = {"identity": self._identity, "arrays": arrays}
            facts["usable_cores"] = usable_cores()
            write_checkpoint_manifest(self._saving(step), step=step, **facts)
            checkpoint_folder.publish_checkpoint(self.path, step)
        self._rejected.pop(step, None)
        for old in checkpoint_folder.steps_to_remove(
            self.steps(), newest=step, keep=self._keep, rejected=self._rejected
        ):
            with self._counting_failed_removals():
                checkpoint_folder.remove_step(self.path, old)
        self._remove_leftovers()

    @contextlib.contextmanager
    def _reported(self, step: int) -> Iterator[None]:
        """Turn whatever a save raises into one clear error; give its space back."""
        try:
            yield
        except Exception as error:  # orbax raises many types on a full disk
            checkpoint_folder.clear_leftovers(self.path)
            text = checkpoint_folder.describe_failed_save(self.path, step, first_line(error))
            raise SaveError(text) from error

    @contextlib.contextmanager
    def _counting_failed_removals(self) -> Iterator[None]:
        """Keep a failed removal from stopping the run: say it and count it."""
        try:
            yield
        except OSError as error:
            self.num_failed_removals += 1
            logging.warning("an old checkpoint could not be removed, the run goes on: %s", error)

    def _remove_leftovers(self) -> None:
        if jax.process_index() != 0:
            return
        for path in checkpoint_folder.list_leftovers(self.path):
            with self._counting_failed_removals():
                shutil.rmtree(path)
                logging.info("removed the leftover %s", path.name)

    def _saving(self, step: int) -> pathlib.Path:
        return self.path / f"{step}{checkpoint_folder.SAVING}"

    # ---- restore

    def restore(
        self, abstract_state: Any, step: int | None = None, *, before: int | None = None
    ) -> Restored | None:
        """Restore `step`, or the newest intact checkpoint.

        Args:
            abstract_state: `jax.ShapeDtypeStruct` leaves with the shardings to restore to.
            step: a step to insist on.
            before: take only checkpoints of earlier steps than this.

        Returns:
            The checkpoint, or None when the folder holds none.

        Raises:
            CheckpointError: when checkpoints exist but none (or not the wanted one) is intact.
            CheckpointMismatchError: when the newest intact one is of another run or version.
        """
        while True:
            there = self.steps()
            try:
                return self._restore(abstract_state, there, step, before)
            except Exception:  # of orbax, any
                # A trainer beside may have removed what was found, once a newer one was there.
                now = self.steps()
                if jax.process_count() > 1 or step is not None or set(now) <= set(there):
                    raise
                self._rejected = {s: why for s, why in self._rejected.items() if s in now}

    def _restore(
        self, abstract_state: Any, there: list[int], step: int | None, before: int | None
    ) -> Restored | None:
        if step is not None and step not in there:
            raise CheckpointError(f"no checkpoint of step {step} in {self.path}: {there}")
        steps = [s for s in there if before is None or s < before]
        chosen = self._agreed_step(steps if step is None else [step])
        if chosen is None:
            return None
        manifest = read_checkpoint_manifest(self.path / str(chosen))
        where = f"the checkpoint of step {chosen} in {self.path}"
        check_fits(where, manifest, self._identity, describe_arrays(abstract_state))
        for text in describe_other_machine(manifest, checkpoint_versions()):
            logging.warning("%s %s", where, text)
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract_state), totals=ocp.args.JsonRestore()
        )
        restored = self._checkpointer.restore(self.path / str(chosen), args=args)
        totals = dict(restored["totals"])
        self._count_rejected(totals)
        self.num_failed_removals += int(totals.get("failed_checkpoint_removals", 0))
        return Restored(chosen, restored["state"], totals, tuple(self._rejected.values()))

    def _count_rejected(self, totals: Mapping[str, Any]) -> None:
        """Add to the count of a checkpoint what is damaged now and not counted in it already."""
        counted = dict(totals.get(_COUNTED, {}))  # none before they were noted
        found = {str(step): identify_save(self.path / str(step)) for step in self._rejected}
        new = found.items() - counted.items()
        self.num_rejected = int(totals.get("rejected_checkpoints", 0)) + len(new)
        self._counted = counted | found

    def _agreed_step(self, steps: list[int]) -> int | None:
        """Let process 0 verify and choose; every process takes its choice."""
        choice, failure = _NO_STEP, CheckpointError("process 0 found no intact checkpoint")
        try:
            if jax.process_index() == 0 and steps:
                choice = self._newest_intact(steps)
        except CheckpointError as error:
            choice, failure = _NONE_INTACT, error
        if jax.process_count() > 1:
            choice = int(multihost_utils.broadcast_one_to_all(np.int32(choice)))
        if choice == _NONE_INTACT:
            raise failure
        return None if choice == _NO_STEP else choice

    def _newest_intact(self, steps: list[int]) -> int:
        for step in reversed(steps):
            try:
                verify(self.path / str(step))
                return step
            except DamagedCheckpointError as error:
                self._rejected[step] = f"step {step}: {error}"
                logging.warning("checkpoint rejected, %s", self._rejected[step])
        told = checkpoint_folder.describe_none_intact(self.path, list(self._rejected.values()))
        raise CheckpointError(told)
