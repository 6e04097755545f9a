"""Training: read it top to bottom.

    open the workdir -> restore -> compile one step per stage -> loop -> final figures

The program of a step (its stage, and the shape of its clips), its batch and its random numbers are
pure functions of (seed, step), so the loop holds no state but `TrainState`, and a resumed run
equals an uninterrupted one bit for bit.
"""

import pathlib
import time

import jax
from absl import logging

from tpdiff_jax.devices.peak import peak_matmul_flops
from tpdiff_jax.devices.stop_signal import StopSignal
from tpdiff_jax.experiment.build import Experiment
from tpdiff_jax.generation.validation_prompts import encode_prompts, settle_prompts
from tpdiff_jax.milestones import Milestones
from tpdiff_jax.optim.optimizer import check_has_work
from tpdiff_jax.run_folder.checkpoints import Checkpoints, Restored
from tpdiff_jax.run_folder.results_file import is_complete
from tpdiff_jax.run_log.cost_meter import CostMeter
from tpdiff_jax.run_log.goodput import GOODPUT_FILE, Goodput
from tpdiff_jax.run_log.lost_lines import (
    describe_lost_lines,
    drop_evaluation,
    last_logged_step,
)
from tpdiff_jax.run_log.metric_writers import open_line_writer, open_metric_writer
from tpdiff_jax.run_log.progress import Progress
from tpdiff_jax.run_log.run_log import RunLog
from tpdiff_jax.run_log.step_window import StepWindow
from tpdiff_jax.train_state import averaged_params
from tpdiff_jax.training.bad_steps import bundle_on_stop
from tpdiff_jax.training.batches import iterate_batches
from tpdiff_jax.training.cost import step_costs
from tpdiff_jax.training.initial_state import abstract_train_state, log_start, make_state, run_keys
from tpdiff_jax.training.schedule_change import announce_schedule
from tpdiff_jax.training.step_programs import compile_steps
from tpdiff_jax.training.training_folder import keep_config, open_workdir

UNSHOWN = "is_unshown"
"""In a checkpoint's totals: whether samples and evaluation of its step are still to be made."""


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
        WriteError: when samples, results or report cannot be written.
        Preempted: after SIGTERM or one Ctrl-C, with a checkpoint saved.
        TooManyBadSteps: after `guard.max_bad_steps` in a row, with a bundle to repeat them.
    """
    spec = experiment.train

    # ---- open the workdir
    goodput = open_goodput(workdir, started_at)
    prompts = encode_prompts(experiment, workdir)
    saved_config = open_workdir(experiment, workdir)
    checkpoints = Checkpoints(
        workdir, identity=experiment.identity, keep=spec.keep_checkpoints, later=True
    )
    key_init, key_steps = run_keys(spec.seed)

    # ---- restore, or start
    abstract_state = abstract_train_state(experiment)
    checkpoints.check_free_space(abstract_state)
    restored = checkpoints.restore(abstract_state)
    first_step = restored.step if restored else 0
    if restored is None:
        check_has_work(experiment.config.optim.name, abstract_state.params)
    state = restored.state if restored else make_state(experiment, key_init)
    log_start(restored, state)
    if is_at_its_end(experiment, workdir, first_step):
        return
    announce_schedule(experiment, saved_config, int(state.num_updates))

    # ---- compile: one step a stage (and shape of clips), side by side
    goodput.begin("compile", first_step)
    step_functions = compile_steps(experiment, abstract_state, key_steps)
    goodput.begin("other")
    log = open_run_log(experiment, workdir, restored, goodput)
    stop = StopSignal()
    milestones = Milestones(experiment, workdir, log, should_stop=lambda: stop.is_set)

    # ---- nothing refuses the command any more: from here on the workdir changes
    keep_config(experiment, workdir)
    milestones.show_requests(settle_prompts(experiment, workdir, prompts))
    checkpoints.make_ready()
    tidy_metrics(experiment, workdir, restored)
    batches = goodput.timed("data", iterate_batches(experiment, first_step))
    stop_report = bundle_on_stop(
        experiment, workdir, key_steps, lambda step: next(iterate_batches(experiment, step))
    )

    # ---- loop
    # A save that has begun ends, however the loop does.
    with log, checkpoints, stop_report, stop:
        is_stopping = False
        if restored and restored.totals.get(UNSHOWN):  # stopped while it was to be shown
            with log.spend("evaluation"):
                is_shown = milestones.show(first_step, averaged_params(experiment.task, state))
            if not is_shown:
                raise Preempted(f"stopped at step {first_step}; the same command goes on")
        for step in range(first_step, spec.num_steps):
            batch = next(batches)
            program = experiment.program_of_step(step)
            dispatched_at = time.perf_counter()
            state, metrics = step_functions[program](state, batch, key_steps)
            log.dispatched(step, program, metrics, dispatched_at)
            done = step + 1
            is_last, is_stopping = done == spec.num_steps, stop.is_due(done)

            if is_last or done % spec.log_every_steps == 0:
                log.line(done, experiment.place_of_program(program), checkpoints.counts())
            # Shown before saved: a run that dies in between resumes earlier and shows it again.
            # One that is to stop may have seconds: it saves, and the next session shows it.
            is_shown = True
            if milestones.is_due(done):
                is_shown = not is_stopping
                if is_shown:
                    with log.spend("evaluation"):
                        is_shown = milestones.show(done, averaged_params(experiment.task, state))
                is_stopping = not is_shown
            if is_last or is_stopping or done % spec.checkpoint_every_steps == 0:
                with log.spend("checkpoint", ends_at=done):
                    checkpoints.save(done, state, log.totals() | {UNSHOWN: not is_shown})
            checkpoints.poll()
            if is_stopping and not is_last:
                with log.spend("checkpoint"):
                    checkpoints.wait()
                raise Preempted(f"stopped after step {done}; the same command goes on from there")

        # ---- final figures
        with log.spend("checkpoint"):
            checkpoints.wait()
        if is_stopping or not milestones.finish(state, checkpoints.counts()):
            raise Preempted("stopped after the last step; the same command makes the final figures")


def is_at_its_end(experiment: Experiment, workdir: pathlib.Path, step: int) -> bool:
    """Whether a run that stands at step `step` has nothing left to do.

    Args:
        experiment: the run.
        workdir: its folder.
        step: completed steps of its newest checkpoint.

    Raises:
        ValueError: when the run is past `train.num_steps`.
    """
    num_steps = experiment.train.num_steps
    if step > num_steps:
        raise ValueError(
            f"train.num_steps={num_steps} is below step {step}, which {workdir} has already reached"
        )
    if step < num_steps or not is_complete(workdir, step):
        return False
    logging.info("the run is complete: %s", workdir / "results.json")
    if jax.process_index() == 0 and not (workdir / "report.html").is_file():
        from tpdiff_jax.report import write_report

        write_report(workdir)  # the disk was full, or someone has removed it
    return True


def open_goodput(workdir: pathlib.Path, started_at: float | None) -> Goodput:
    """Start the clock of this session, which counts what comes before the loop too.

    Args:
        workdir: the run's folder.
        started_at: when the process started, seconds since 1970; None is now.
    """
    lines = open_line_writer(workdir / GOODPUT_FILE, process_index=jax.process_index())
    return Goodput(lines, started_at=started_at)


def tidy_metrics(experiment: Experiment, workdir: pathlib.Path, restored: Restored | None) -> None:
    """Say which lines of metrics were lost, and drop those that the end of the run writes again.

    Args:
        experiment: the run.
        workdir: its folder.
        restored: where it goes on; None at its start.
    """
    if restored is None or jax.process_index() != 0:
        return
    step, logged_step = restored.step, last_logged_step(restored.totals)
    if text := describe_lost_lines(workdir, step=step, logged_step=logged_step):
        logging.warning("%s", text)
    if step == experiment.train.num_steps:
        drop_evaluation(workdir, step)


def open_run_log(
    experiment: Experiment, workdir: pathlib.Path, restored: Restored | None, goodput: Goodput
) -> RunLog:
    """Open the log right before the loop: its rates are those of the loop.

    Args:
        experiment: the run.
        workdir: its folder.
        restored: where it goes on; None at its start.
        goodput: the session's clock.
    """
    process_index = jax.process_index()
    window = StepWindow(
        experiment.pyramid.num_stages,
        restored.totals if restored else None,
        max_bad_steps=experiment.task.guard.max_bad_steps,
        num_buckets=len(experiment.shapes),
    )
    peak_flops = peak_matmul_flops(experiment.network.config.dtype) * jax.device_count()
    return RunLog(
        window=window,
        meter=CostMeter(step_costs(experiment), window, peak_flops=peak_flops),
        goodput=goodput,
        writer=open_metric_writer(
            workdir,
            restored_step=restored.step if restored else None,
            sinks=experiment.log.sinks,
            process_index=process_index,
        ),
        progress=Progress(
            experiment.train.num_steps,
            initial=restored.step if restored else 0,
            is_quiet=process_index != 0,
        ),
        logged_step=last_logged_step(restored.totals) if restored else 0,
    )
