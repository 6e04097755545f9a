"""The folder of a training run: one trainer at a time, one config for good."""

import contextlib
import pathlib
from collections.abc import Iterator

import jax

from tpdiff_jax.devices.processes import is_true_at_main, wait_for_others
from tpdiff_jax.experiment.build import Experiment
from tpdiff_jax.files import file_lock
from tpdiff_jax.files.durable import FULL_DISK_ERRORS, WriteError
from tpdiff_jax.run_folder import checkpoint_folder, run_config

LOCK_FILE = ".train.lock"
_LOCK_PATIENCE = 100.0  # longer than an NFS server keeps the locks of a machine that is gone


@contextlib.contextmanager
def only_trainer(workdir: pathlib.Path) -> Iterator[None]:
    """Make the workdir and keep other training runs out of it; process 0 does, for all.

    Args:
        workdir: the run's folder.

    Raises:
        ValueError: in every process, when another run is training there or it cannot be written.
        WriteError: in process 0, when that is because the disk is full.
    """
    busy = f"--workdir={workdir} is being trained in by another process"
    refusal: Exception | None = None
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            lock = file_lock.hold(workdir / LOCK_FILE, busy, patience=_LOCK_PATIENCE)
            try:
                workdir.mkdir(parents=True, exist_ok=True)
                stack.enter_context(lock)
            except ValueError as error:
                refusal = error
            except OSError as error:
                text = f"--workdir={workdir} cannot be written: {error}"
                is_full = error.errno in FULL_DISK_ERRORS
                refusal = WriteError(error.errno, text) if is_full else ValueError(text)
        if is_true_at_main(refusal is not None):
            raise refusal or ValueError(f"process 0 cannot train in --workdir={workdir}")
        yield


def open_workdir(experiment: Experiment, workdir: pathlib.Path) -> None:
    """Check that a folder is new or holds a run of the same config; nothing there is changed.

    Args:
        experiment: the run that is to start or to go on there.
        workdir: its folder; made when it is missing.

    Raises:
        ValueError: when it holds another run, or checkpoints of none.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    if (workdir / run_config.FILE_NAME).exists():
        run_config.check_same_run(run_config.load_config(workdir), experiment.config)
    elif checkpoint_folder.list_steps(workdir / "checkpoints"):
        raise ValueError(f"{workdir} holds checkpoints but no {run_config.FILE_NAME}")
    wait_for_others("the workdir is read")


def keep_config(experiment: Experiment, workdir: pathlib.Path) -> None:
    """Write config.json, of a run that starts or whose length, periods or mesh have changed.

    Args:
        experiment: the run, which nothing refuses any more: a refused command changes nothing.
        workdir: its folder.
    """
    if jax.process_index() == 0:
        run_config.save_config(workdir, experiment.config)
