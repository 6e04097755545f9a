"""How a command ends: written once, for the command, its help and the launchers."""

import enum


class ExitCode(enum.IntEnum):
    """How a command ends; launchers act on it."""

    DONE = 0
    BAD_INPUT = 2
    PREEMPTED = 3
    BAD_STEPS = 4
    DOES_NOT_FIT = 5
    SAVE_FAILED = 6
    TOO_MANY_BAD_CLIPS = 7
    DIFFERS = 8
    INTERRUPTED = 130


EXIT_CODES = {
    ExitCode.DONE: "done",
    ExitCode.BAD_INPUT: "bad input (one line says what)",
    ExitCode.PREEMPTED: "stopped by SIGTERM, or training by one Ctrl-C: training with a checkpoint "
    "saved once its loop runs, all else at once with nothing half written (the same command goes "
    "on)",
    ExitCode.BAD_STEPS: "too many bad steps in a row (bad_steps/ holds what repeats them)",
    ExitCode.DOES_NOT_FIT: "what was planned does not fit its machine",
    ExitCode.SAVE_FAILED: "a checkpoint or another file could not be written, as on a full disk "
    "(make room; the same command goes on from the last checkpoint)",
    ExitCode.TOO_MANY_BAD_CLIPS: "too many bad clips or table rows",
    ExitCode.DIFFERS: "a replayed step differs from the logged one",
    ExitCode.INTERRUPTED: "stopped at once: by a second Ctrl-C, or another mode than train by one",
}
