"""The command: `python -m tpdiff_jax.main --help` says what it does.

The room `command_line` holds modes, flags and exit codes. A mode is one function here, which
imports what it needs: a mistake on the command line should not wait for the whole stack. An
exception is one exit code.
"""

import errno
import os
import sys

if not __package__:  # run as a file: `types.py` beside it would stand for the standard library's
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import contextlib
import gc
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from absl import app, flags, logging

from tpdiff_jax import command_line
from tpdiff_jax.checks import is_bucket_address
from tpdiff_jax.command_line import Command, ExitCode
from tpdiff_jax.devices.early_stop import (
    leave_at_ctrl_c,
    leave_at_sigterm,
    leaving_at_ctrl_c,
    raise_at_ctrl_c,
)
from tpdiff_jax.files.durable import DISK_ERRORS
from tpdiff_jax.run_log.console import set_up_console

if TYPE_CHECKING:
    from tpdiff_jax.generation.from_checkpoint import OpenedRun

STOPS = {
    "tpdiff_jax.train.Preempted": ExitCode.PREEMPTED,
    "tpdiff_jax.optim.guard.TooManyBadSteps": ExitCode.BAD_STEPS,
    "tpdiff_jax.run_folder.checkpoints.SaveError": ExitCode.SAVE_FAILED,
    "tpdiff_jax.files.durable.WriteError": ExitCode.SAVE_FAILED,
    "tpdiff_jax.files.open_files.OpenFilesError": ExitCode.BAD_INPUT,
    "tpdiff_jax.run_folder.local_copy.SendError": ExitCode.SAVE_FAILED,
    "tpdiff_jax.planning.program_cost.DoesNotFit": ExitCode.DOES_NOT_FIT,
    "tpdiff_jax.clips.bad_clips.TooManyBadClipsError": ExitCode.TOO_MANY_BAD_CLIPS,
}
"""Exception -> exit code, by name: what raised one has imported it, so nobody else needs to."""

# A path on the command line that is something else, or not ours; other OSErrors may pass.
_WRONG_PATHS = (FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)

_WRONG_NAMES = (errno.ENAMETOOLONG, errno.ELOOP)

_AT_CTRL_C = {
    ExitCode.PREEMPTED: "tpdiff_jax: stopped by Ctrl-C; the same command goes on from what is on "
    "the disk",
    ExitCode.INTERRUPTED: "tpdiff_jax: interrupted; what is on the disk is whole",
}

_STARTED_AT = time.time()  # before the slow imports: they are part of what a restart costs


def run_train(command: Command, workdir: pathlib.Path) -> None:
    """Train."""
    from tpdiff_jax import train as training
    from tpdiff_jax.experiment.remat_field import with_saved_choices
    from tpdiff_jax.training.remat_choice import build_for_training
    from tpdiff_jax.training.training_folder import only_trainer

    with leaving_at_ctrl_c(ExitCode.PREEMPTED, lambda: _what_ctrl_c_leaves(workdir)):
        experiment = build_for_training(with_saved_choices(command.values["config"], workdir))
        with only_trainer(workdir):
            training.train(experiment, workdir, started_at=_STARTED_AT)


def _what_ctrl_c_leaves(workdir: pathlib.Path) -> str:
    """Say from where the same command goes on when its training loop does not run."""
    from tpdiff_jax.run_folder.checkpoint_folder import list_steps

    steps = list_steps(workdir / "checkpoints")
    where = f"goes on from step {steps[-1]}" if steps else "starts anew: nothing is saved yet"
    return f"tpdiff_jax: stopped by Ctrl-C; the same command {where}"


def run_sample(command: Command, workdir: pathlib.Path) -> None:
    """Generate videos from a checkpoint."""
    from tpdiff_jax.generation.prompts import SampleFlags
    from tpdiff_jax.sample import sample_run

    given = command.of(
        *("prompts", "videos_per_prompt", "negative_prompt", "text_weights", "naming", "labels")
    )
    asked = SampleFlags(captions=command.values["caption"], **given)
    sample_run(_open_run(command, workdir), asked, _out(command))


def run_evaluate(command: Command, workdir: pathlib.Path) -> None:
    """Measure a checkpoint."""
    from tpdiff_jax.evaluate import evaluate_run

    evaluate_run(_open_run(command, workdir), _out(command))


def run_export(command: Command, workdir: pathlib.Path) -> None:
    """Write a checkpoint's parameters as published weights, low-rank changes alone, or a card."""
    from tpdiff_jax.export import export_adapter, export_model_card, export_run

    what, licence = command.values["what"], command.values["licence"]
    given = command.values["layout"], command.values["dtype"], _out(command)
    if what == "model_card":
        export_model_card(_open_run(command, workdir), *given, licence)
        return
    if licence is not None:
        raise ValueError(f"--licence={licence} is for --what=model_card")
    write = export_adapter if what == "adapter" else export_run
    write(_open_run(command, workdir), *given)


def run_prepare(command: Command, workdir: pathlib.Path) -> None:
    """Make clips out of videos."""
    from tpdiff_jax import prepare as preparation
    from tpdiff_jax.devices.origin import run_origin
    from tpdiff_jax.experiment.prepare_config import build_prepare, open_clip_encoder
    from tpdiff_jax.files.json_files import write_json
    from tpdiff_jax.preparation.output_folder import ORIGIN_FILE
    from tpdiff_jax.preparation.ray_shards import make_engine

    spec = build_prepare(command.values["config"])
    name, address = command.values["engine"], command.values["engine_address"]
    engine = make_engine(spec, name, address, open_clip_encoder)
    manifest = preparation.prepare(spec, workdir, open_clip_encoder(spec), engine)
    origin = workdir / ORIGIN_FILE
    if manifest is not None and not origin.exists():
        # Beside the manifest, whose bytes tell the clips apart and not where they were made.
        write_json(origin, run_origin())


def run_plan(command: Command, workdir: pathlib.Path) -> None:
    """Say what a config would take on a machine."""
    from tpdiff_jax import plan as planning
    from tpdiff_jax.devices.compilation_cache import OFF, open_compilation_cache

    open_compilation_cache(OFF)  # what is planned is read from the compiler's own output
    planning.plan(command.values["config"], workdir, planning.plan_flags(command.values))


def run_advise(command: Command, workdir: pathlib.Path | None) -> None:
    """Say which pyramid a config's clips allow."""
    from tpdiff_jax.advise import AdviceFlags, advise

    advise(command.values["config"], workdir, AdviceFlags(**command.of(*AdviceFlags._fields)))


def run_doctor(command: Command, workdir: pathlib.Path) -> None:
    """Say what state a workdir is in."""
    from tpdiff_jax import doctor as examining

    if command.values["trust_step"] is not None:
        examining.trust(workdir, command.values["trust_step"])
    examining.examine(workdir)


def run_replay(command: Command, workdir: pathlib.Path) -> int:
    """Take a step again; return the exit code."""
    from tpdiff_jax import replay as replaying

    is_equal = replaying.replay(
        workdir, command.values["step"], data_folder=command.values["data_folder"]
    )
    return ExitCode.DONE if is_equal else ExitCode.DIFFERS


RUN: Mapping[str, Callable[[Command, Any], int | None]] = {
    "train": run_train,
    "sample": run_sample,
    "evaluate": run_evaluate,
    "export": run_export,
    "prepare": run_prepare,
    "plan": run_plan,
    "advise": run_advise,
    "doctor": run_doctor,
    "replay": run_replay,
}
"""Mode -> what it does; None is as good as `ExitCode.DONE`."""


def _out(command: Command) -> pathlib.Path | None:
    return pathlib.Path(out) if (out := command.values["out"]) else None


def _open_run(command: Command, workdir: pathlib.Path) -> "OpenedRun":
    """Open the checkpoint that --step names, with the flags that override the config."""
    from tpdiff_jax.generation.from_checkpoint import GenerateFlags, open_run

    config, step = command.values["config"], command.values["step"]
    overrides = GenerateFlags(**command.of(*GenerateFlags._fields))
    return open_run(
        workdir,
        config=config,
        step=step,
        overrides=overrides,
        is_measured=command.mode == "evaluate",
    )


def set_up_jax(command: Command) -> None:
    """Set up memory, compilation cache and the run's processes, before devices are asked for.

    Raises:
        ValueError: for flags that do not fit together.
    """
    from tpdiff_jax.devices.compilation_cache import open_compilation_cache
    from tpdiff_jax.devices.host_memory import reuse_large_blocks
    from tpdiff_jax.devices.processes import ProcessFlags, join_processes

    reuse_large_blocks()
    open_compilation_cache(command.values["compilation_cache"])
    join_processes(ProcessFlags(**command.of(*ProcessFlags._fields)))


def run_mode(command: Command) -> int:
    """Do what a command line asks for; return the exit code."""
    if command.mode in command_line.DEVICE_MODES:
        set_up_jax(command)
    if command.mode != "train" or is_bucket_address(command.values["workdir"]):
        raise_at_ctrl_c()  # they tidy up; training leaves at once until its loop runs
    with _workdir(command) as workdir:
        return RUN[command.mode](command, workdir) or ExitCode.DONE


def _workdir(command: Command) -> contextlib.AbstractContextManager[pathlib.Path | None]:
    """Return the folder to work in: --workdir, or a copy of the address that it is; or none."""
    if not is_bucket_address(address := command.values["workdir"]):
        return contextlib.nullcontext(address and pathlib.Path(address))
    from tpdiff_jax.run_folder.working_copy import working_copy

    if command.mode in command_line.DEVICE_MODES:
        import jax

        if (number := jax.process_count()) > 1:
            raise ValueError(
                f"--workdir={address}: {number} processes need a folder that all share, such as "
                "NFS or a mounted bucket"
            )
    return working_copy(address, command.mode, command.values.get("step"))


def main(argv: Sequence[str]) -> None:
    """Read the command line and do it; every known way to stop is one line and an exit code."""
    try:
        command = command_line.parse(argv)
        check_run(command)
        sys.exit(run_mode(command))
    except KeyboardInterrupt:
        logging.warning("interrupted; what is on the disk is whole")
        sys.exit(ExitCode.INTERRUPTED)
    except Exception as error:
        if (code := exit_code(error)) is None:
            raise
        logging.debug("leaving", exc_info=error)
        if code == ExitCode.PREEMPTED:
            logging.warning("%s", error)
        else:
            print(f"tpdiff_jax: error: {error}", file=sys.stderr)
        sys.exit(code)


def check_run(command: Command) -> None:
    """Refuse a workdir that is no run, where one is needed, before networks are imported."""
    from tpdiff_jax.run_folder.run_config import check_is_run

    address, is_needed = command.values["workdir"], command.mode in command_line.NEED_A_RUN
    if is_needed and command.values.get("config") is None and not is_bucket_address(address):
        check_is_run(pathlib.Path(address))


def exit_code(error: Exception) -> ExitCode | None:
    """Return the code that an exception ends with; None for one that nobody expects."""
    for kind in type(error).__mro__:
        if code := STOPS.get(f"{kind.__module__}.{kind.__qualname__}"):
            return code
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return ExitCode.SAVE_FAILED
    if isinstance(error, OSError) and error.errno in _WRONG_NAMES:
        return ExitCode.BAD_INPUT
    return ExitCode.BAD_INPUT if isinstance(error, (ValueError, *_WRONG_PATHS)) else None


def keep_from_libraries(argv: Sequence[str]) -> list[str]:
    """Mark the flags of libraries as read, which they ask for, and return all arguments."""
    flags.FLAGS(list(argv[:1]))
    return list(argv)


def run_command() -> None:
    """Entry point: `tpdiff_jax sample --workdir=...` names the mode as `--mode=sample` does."""
    if sys.argv[1:2] and not sys.argv[1].startswith("-"):  # a misspelled mode is told the modes
        sys.argv[1] = f"--mode={sys.argv[1]}"
    run()


def run() -> None:
    """Do what the command line of this process asks for."""
    # What is imported and traced stays: to look through it again and again for garbage was a tenth
    # of the time of a short run.
    gc.set_threshold(10_000, 10, 10)
    leave_at_sigterm(ExitCode.PREEMPTED)
    is_training = command_line.read_mode(sys.argv) == "train"
    code = ExitCode.PREEMPTED if is_training else ExitCode.INTERRUPTED
    leave_at_ctrl_c(code, _AT_CTRL_C[code])
    command_line.print_help_when_asked(sys.argv)
    command_line.print_version_when_asked(sys.argv)
    set_up_console()
    app.run(main, flags_parser=keep_from_libraries)


if __name__ == "__main__":
    run_command()
