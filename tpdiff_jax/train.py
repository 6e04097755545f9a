"""Training: read it top to bottom.

    open the workdir -> restore -> compile one step per stage -> loop -> final figures

The program of a step (its stage, and the shape of its clips), its batch and its random numbers are
pure functions of (seed, step), so the loop holds no state but `TrainState`, and a resumed run
equals an uninterrupted one bit for bit.
"""

import contextlib
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax
from absl import logging
from clu import parameter_overview

from tpdiff_jax import file_lock, results, run_config
from tpdiff_jax.bad_steps import bundle_on_stop
from tpdiff_jax.build import Experiment
from tpdiff_jax.cost import CostMeter
from tpdiff_jax.data import make_iterator
from tpdiff_jax.infra import mesh as mesh_lib
from tpdiff_jax.infra.checkpoints import Checkpoints, Restored
from tpdiff_jax.infra.goodput import GOODPUT_FILE, Goodput
from tpdiff_jax.infra.metric_writers import open_line_writer, open_metric_writer
from tpdiff_jax.infra.processes import is_true_at_main, wait_for_others
from tpdiff_jax.infra.progress import Progress
from tpdiff_jax.infra.step_window import StepWindow
from tpdiff_jax.infra.stop_signal import StopSignal
from tpdiff_jax.initial_state import abstract_train_state, make_state, run_keys
from tpdiff_jax.milestones import Milestones
from tpdiff_jax.stage_schedule import ClipsOfStep
from tpdiff_jax.step_programs import compile_steps
from tpdiff_jax.train_step import TrainState, averaged_params

LOCK_FILE = ".train.lock"
_LOCK_PATIENCE = 100.0  # longer than an NFS server keeps the locks of a machine that is gone


class Preempted(Exception):
    """The run was asked to stop; its checkpoint is on disk."""


def train(
    experiment: Experiment, workdir: pathlib.Path, *, started_at: float | None = None
) -> None:
    """Train from the newest checkpoint, or from the start, to `train.num_steps`.

    Args:
        experiment: what to train.
        workdir: the run's folder.
        started_at: when the process started, seconds since 1970, for the account of its time.

    Raises:
        ValueError: when the workdir belongs to another run, is past `train.num_steps`, none of
            its checkpoints is intact or the disk has no room for them.
        SaveError: when a checkpoint cannot be written; at the next step at the latest.
        Preempted: after SIGTERM, with a checkpoint saved.
        TooManyBadSteps: after `guard.max_bad_steps` in a row, with a bundle to repeat them.
    """
    spec = experiment.train
    is_main = jax.process_index() == 0

    # ---- open the workdir
    time_log = open_line_writer(workdir / GOODPUT_FILE, process_index=jax.process_index())
    goodput = Goodput(time_log, started_at=started_at)
    open_workdir(experiment, workdir)
    checkpoints = Checkpoints(workdir, identity=experiment.identity, keep=spec.keep_checkpoints)
    key_init, key_steps = run_keys(spec.seed)

    # ---- restore, or start
    abstract_state = abstract_train_state(experiment)
    checkpoints.check_free_space(abstract_state)
    restored = checkpoints.restore(abstract_state)
    first_step = restored.step if restored else 0
    state = restored.state if restored else make_state(experiment, key_init)
    log_start(restored, state)
    if first_step > spec.num_steps:
        raise ValueError(
            f"train.num_steps={spec.num_steps} is below step {first_step}, which {workdir} has "
            "already reached"
        )
    if first_step == spec.num_steps and results.is_complete(workdir, first_step):
        logging.info("the run is complete: %s", workdir / "results.json")
        return
    window = StepWindow(
        experiment.pyramid.num_stages,
        restored.totals if restored else None,
        max_bad_steps=experiment.task.guard.max_bad_steps,
        num_buckets=len(experiment.shapes),
    )
    writer = open_metric_writer(
        workdir,
        restored_step=restored.step if restored else None,
        process_index=jax.process_index(),
    )

    # ---- compile: one step a stage (and shape of clips), side by side
    goodput.begin("compile", first_step)
    step_functions = compile_steps(experiment, abstract_state, key_steps)
    goodput.begin("other")
    meter = CostMeter(experiment, window)  # its clock starts here: rates are those of the loop
    milestones = Milestones(experiment, workdir, writer, meter, goodput)
    batches = goodput.timed("data", iterate_batches(experiment, first_step))
    stop_report = bundle_on_stop(
        experiment, workdir, key_steps, lambda step: next(iterate_batches(experiment, step))
    )
    progress = Progress(spec.num_steps, initial=first_step, is_quiet=not is_main)

    # ---- loop
    closing = contextlib.closing(checkpoints)  # a save that has begun ends, however the loop does
    with goodput, closing, writer, progress, stop_report, StopSignal() as stop:
        for step in range(first_step, spec.num_steps):
            batch = next(batches)
            program = experiment.program_of_step(step)
            dispatched_at = time.perf_counter()
            state, metrics = step_functions[program](state, batch, key_steps)
            window.dispatched(step, program, metrics, dispatched_at)
            done = step + 1
            is_last, is_stopping = done == spec.num_steps, stop.is_due(done)

            if is_last or done % spec.log_every_steps == 0:
                scalars = window.close() | meter.rates() | meter.spent() | checkpoints.counts()
                place = experiment.place_of_program(program)
                writer.write_scalars(done, place | scalars)
                progress.update(done, loss=scalars["loss"], **place)
                goodput.close_span(done, window.take_busy())
            # Shown before saved: a run that dies in between resumes earlier and shows it again.
            if milestones.is_due(done):
                window.wait()
                with meter.paused(), goodput.spend("evaluation"):
                    milestones.show(done, averaged_params(experiment.task, state))
            if is_last or is_stopping or done % spec.checkpoint_every_steps == 0:
                totals = window.totals()
                with goodput.spend("checkpoint"):
                    checkpoints.save(done, state, totals)
                goodput.close_span(done, window.take_busy())
            checkpoints.poll()
            if is_stopping and not is_last:
                with goodput.spend("checkpoint"):
                    checkpoints.wait()
                raise Preempted(f"stopped after step {done}; the same command goes on from there")

        # ---- final figures
        with goodput.spend("checkpoint"):
            checkpoints.wait()
        milestones.finish(state, window, checkpoints.counts())


@contextlib.contextmanager
def only_trainer(workdir: pathlib.Path) -> Iterator[None]:
    """Make the workdir and keep other training runs out of it; process 0 does, for all.

    Raises:
        ValueError: in every process, when another run is training there or it cannot be written.
    """
    busy, refusal = f"--workdir={workdir} is being trained in by another process", None
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            lock = file_lock.hold(workdir / LOCK_FILE, busy, patience=_LOCK_PATIENCE)
            try:
                workdir.mkdir(parents=True, exist_ok=True)
                stack.enter_context(lock)
            except ValueError as error:
                refusal = error
            except OSError as error:
                refusal = ValueError(f"--workdir={workdir} cannot be written: {error}")
        if is_true_at_main(refusal is not None):
            raise refusal or ValueError(f"process 0 cannot train in --workdir={workdir}")
        yield


def open_workdir(experiment: Experiment, workdir: pathlib.Path) -> None:
    """Make the workdir, or check that it holds a run of the same config; write config.json."""
    workdir.mkdir(parents=True, exist_ok=True)
    if (workdir / run_config.FILE_NAME).exists():
        run_config.check_same_run(run_config.load_config(workdir), experiment.config)
    elif (workdir / "checkpoints").exists():
        raise ValueError(f"{workdir} holds checkpoints but no {run_config.FILE_NAME}")
    wait_for_others("the workdir is read")
    if jax.process_index() == 0:
        run_config.save_config(workdir, experiment.config)


def log_start(restored: Restored | None, state: TrainState) -> None:
    """Say what the run trains and where it starts."""
    overview = parameter_overview.get_parameter_overview(dict(state.params), include_stats=False)
    logging.info("parameters:\n%s", overview)
    if state.frozen:
        num_frozen = sum(leaf.size for leaf in jax.tree.leaves(state.frozen))
        logging.info("and %d parameters that stay as they are", num_frozen)
    if restored is None:
        logging.info("no checkpoint in the workdir: starting at step 0")
    else:
        reason = "; ".join(restored.rejected)
        because = f", because newer ones are damaged ({reason})" if reason else ""
        logging.info("resumed from the checkpoint of step %d%s", restored.step, because)


def iterate_batches(experiment: Experiment, first_step: int) -> Iterator[Any]:
    """Yield the batch of each step from `first_step` on, as global arrays on the mesh."""
    mesh, spec = experiment.mesh, experiment.train
    clips = ClipsOfStep(
        seed=spec.seed,
        stage_probs=spec.stage_probs,
        rows=tuple(
            tuple(mesh_lib.local_rows(mesh, size).tolist()) for size in experiment.batch_sizes
        ),
        clips_per_step=max(experiment.batch_sizes),
        bucket_steps=experiment.bucket_steps,
    )
    batches = make_iterator(
        experiment.clips,
        split="train",
        seed=spec.seed,
        clips_of_step=clips,
        start_step=first_step,
        num_threads=experiment.num_data_threads,
    )
    for step, batch in enumerate(batches, start=first_step):
        fields = {"video": batch["video"], "cond": batch["cond"]}
        yield mesh_lib.put_batch(mesh, fields, experiment.batch_sizes[clips.stage(step)])
