"""The folder of a training run: one trainer at a time, one config for good."""

import contextlib
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import jax

from tpdiff_jax.data import BucketedClips, read_recorded_clips, record_clips
from tpdiff_jax.devices.processes import is_true_at_main, wait_for_others
from tpdiff_jax.experiment.build import Experiment
from tpdiff_jax.files import file_lock
from tpdiff_jax.files.durable import FULL_DISK_ERRORS, WriteError
from tpdiff_jax.files.folders import first_names, visible_names
from tpdiff_jax.run_folder import checkpoint_folder, run_config
from tpdiff_jax.run_folder.checkpoint_manifest import differences
from tpdiff_jax.training.known_weights import record_weights, same_places

LOCK_FILE = ".train.lock"
_OWN = re.compile(
    r".*\.log|log.*\.txt|nohup\.out|goodput\.jsonl|(plan_.*|advise)\.(json|html)|checkpoints"
)
"""What may lie in a folder before its run has begun: logs, its account of time, plans, advice."""
_LOCK_PATIENCE = 100.0  # longer than an NFS server keeps the locks of a machine that is gone


@contextlib.contextmanager
def only_trainer(workdir: pathlib.Path) -> Iterator[None]:
    """Make the workdir and keep other training runs out of it; process 0 does, for all.

    Args:
        workdir: the run's folder.

    Raises:
        ValueError: in every process, when another run is training there, it cannot be written or
            is an exported model; nothing is written then.
        WriteError: in process 0, when that is because the disk is full.
    """
    busy = f"--workdir={workdir} is being trained in by another process"
    refusal: Exception | None = None
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            lock = file_lock.hold(workdir / LOCK_FILE, busy, patience=_LOCK_PATIENCE)
            try:
                run_config.refuse_exported_model(workdir)
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


def open_workdir(experiment: Experiment, workdir: pathlib.Path) -> Any:
    """Check that a folder is new or holds a run of the same config; nothing there is changed.

    Args:
        experiment: the run that is to start or to go on there.
        workdir: its folder; made when it is missing.

    Returns:
        The config that the run had before; None for a new run.

    Raises:
        ValueError: when it holds another run, checkpoints of none, or files of something else.
    """
    run_config.refuse_exported_model(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    saved = None
    if (workdir / run_config.FILE_NAME).exists():
        saved = run_config.load_config(workdir)
        places = same_places(workdir, run_config.changed_places(saved, experiment.config))
        run_config.check_same_run(saved, experiment.config, same_places=places)
        check_same_clips(experiment, workdir)
    elif checkpoint_folder.list_steps(workdir / "checkpoints"):
        raise ValueError(f"{workdir} holds checkpoints but no {run_config.FILE_NAME}")
    elif foreign := [name for name in visible_names(workdir) if not _OWN.fullmatch(name)]:
        raise ValueError(
            f"--workdir={workdir} is no run's folder and not empty ({first_names(foreign)}): a run "
            "would mix its files with others; name a new folder"
        )
    wait_for_others("the workdir is read")
    return saved


def check_same_clips(experiment: Experiment, workdir: pathlib.Path) -> None:
    """Refuse other clips than those that a run began on, checkpoint or not.

    Args:
        experiment: the run.
        workdir: its folder.

    Raises:
        ConfigMismatchError: with one line for each fact that differs.
    """
    recorded = read_recorded_clips(workdir)
    if not recorded:
        return
    lines = differences(
        "dataset.", BucketedClips(buckets=recorded).fingerprint(), experiment.clips.fingerprint()
    )
    if lines:
        raise run_config.ConfigMismatchError(
            "data.folder does not hold the clips that the workdir's run began on:\n"
            + "\n".join(lines)
        )


def keep_config(experiment: Experiment, workdir: pathlib.Path) -> None:
    """Write config.json of a run that starts or goes on, and what sampling needs of its clips.

    Args:
        experiment: the run, which nothing refuses any more: a refused command changes nothing.
            Its length, periods, mesh and places may have changed.
        workdir: its folder.
    """
    if jax.process_index() != 0:
        return
    run_config.save_config(workdir, experiment.config)
    if "folder" in experiment.config.data and not read_recorded_clips(workdir):
        record_clips(workdir, {clips.bucket: clips.dataset for clips in experiment.shapes})
    record_weights(workdir, experiment.config)
