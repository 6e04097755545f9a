"""Lines of `metrics.jsonl` that were written before a checkpoint and are not there any more.

A line is with the operating system before the checkpoint of its step is, and a failed write only
counts; so a file that was lost, or cut by a power failure or by hand, would go unnoticed. Each
checkpoint therefore holds the step of the last line before it.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from absl import logging

from tpdiff_jax.files.durable import write_durably
from tpdiff_jax.run_log.json_lines import METRICS_FILE, read_metrics, valid_lines

LOGGED_STEP = "logged_step"
"""Among a checkpoint's totals: completed steps at the last line before it; 0 for none."""


def last_logged_step(totals: Mapping[str, Any] | None) -> int:
    """Return what a checkpoint says of the last line before it; 0 where it says nothing."""
    step = (totals or {}).get(LOGGED_STEP)
    return step if type(step) is int and step > 0 else 0


def describe_lost_lines(workdir: pathlib.Path, *, step: int, logged_step: int) -> str | None:
    """Return what `metrics.jsonl` lacks, as a sentence; None where it has what it should.

    Args:
        workdir: the run's folder.
        step: completed steps of a checkpoint.
        logged_step: of the last line before it; 0 for none.
    """
    path = workdir / METRICS_FILE
    lines = [line for line in read_metrics(path) if "loss" in line and line["step"] <= step]
    last = max((line["step"] for line in lines), default=0)
    if last >= logged_step:
        return None
    what = f"ends at step {last}" if path.exists() else "is missing"
    return (
        f"{METRICS_FILE} {what}, but lines up to step {logged_step} were written before the "
        f"checkpoint of step {step}: they are lost"
    )


def drop_evaluation(workdir: pathlib.Path, step: int) -> None:
    """Drop the lines of an evaluation that is about to be made again.

    Args:
        workdir: the run's folder.
        step: completed steps of that evaluation.
    """
    path = workdir / METRICS_FILE
    if not path.exists():
        return
    try:
        before = path.read_bytes()
        kept = [
            line
            for line, record in valid_lines(before)
            if record["step"] != step or not any(name.startswith("eval/") for name in record)
        ]
        if (after := b"".join(kept)) != before:
            write_durably(path, after)
    except OSError as error:  # a lost or repeated line stops no run
        logging.warning("%s could not be tidied: %s", path, error)
