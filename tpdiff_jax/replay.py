"""Take a logged step again, from the newest checkpoint before it, and compare the bits.

A step is a function of the state, (seed, step) and the config, so on the same platform and number
of devices it must give the loss and gradient norm that `metrics.jsonl` holds (`step_loss`,
`step_grad_norm`: a float32 written as a JSON number comes back exactly). Steps that a run took
before it was made longer had the learning rates of another schedule, and cannot be taken again.
"""

import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from absl import logging

from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.files.json_files import refusing_odd_fields
from tpdiff_jax.run_folder import run_config
from tpdiff_jax.run_folder.checkpoints import Checkpoints
from tpdiff_jax.run_log.json_lines import METRICS_FILE, read_metrics
from tpdiff_jax.training.batches import iterate_batches
from tpdiff_jax.training.initial_state import abstract_train_state, make_state, run_keys
from tpdiff_jax.training.schedule_change import is_same_rate
from tpdiff_jax.training.step_programs import compile_steps
from tpdiff_jax.training.training_folder import check_same_clips

COMPARED = {"loss": "step_loss", "grad_norm": "step_grad_norm"}
"""Metric of a step -> its name in a line of `metrics.jsonl`."""


class Comparison(NamedTuple):
    """One figure of a replayed step beside the logged one.

    Attributes:
        name: of the metric.
        replayed: the figure of the step taken again.
        logged: that of its line; None where it has none.
        is_same_schedule: whether the logged steps were taken at the learning rates of now.
    """

    name: str
    replayed: float
    logged: float | None
    is_same_schedule: bool = True

    @property
    def is_equal(self) -> bool | None:
        """Whether the bits agree; None when nothing was logged, or differs with the schedule."""
        if self.logged is None:
            return None
        if math.isnan(self.logged):
            is_equal = not math.isfinite(self.replayed)
        else:
            is_equal = self.replayed.hex() == self.logged.hex()
        return is_equal if is_equal or self.is_same_schedule else None

    def __str__(self) -> str:
        shown = f"  {self.name:<10} {self.replayed!r:<24} {self.replayed.hex():<24}"
        if self.logged is None:
            return shown + "not logged"
        verdict = {
            None: f"logged {self.logged!r}: the schedule was another then",
            True: "equal to the logged one",
            False: f"DIFFERS from the logged {self.logged!r}",
        }
        return shown + verdict[self.is_equal]


def replay(workdir: pathlib.Path, step: int, *, data_folder: str | None = None) -> bool:
    """Take step `step` of a run again and print what it gives.

    Args:
        workdir: a folder that `--mode=train` has made.
        step: numbered as in `metrics.jsonl`: completed steps, this one included.
        data_folder: where the clips lie now; None where they are where they were.

    Returns:
        False when a logged figure differs and the schedule is still that of then.

    Raises:
        ValueError: when the folder is no run, the step is not one of it or every checkpoint
            before it is damaged.
    """
    config = run_config.load_config(workdir)
    if data_folder is not None:
        if "folder" not in config.data:
            raise ValueError(f"--data_folder: data.name={config.data.name!r} reads no folder")
        config.data.folder = data_folder
    with refusing_odd_fields(workdir / run_config.FILE_NAME):
        experiment = build_experiment(config)
    if data_folder is not None:
        check_same_clips(experiment, workdir)
    spec = experiment.train
    if not 1 <= step <= spec.num_steps:
        raise ValueError(f"--step={step} must lie in 1 to train.num_steps={spec.num_steps}")
    key_init, key_steps = run_keys(spec.seed)
    abstract_state = abstract_train_state(experiment)
    restored = Checkpoints(workdir, create=False).restore(abstract_state, before=step)
    first_step = restored.step if restored else 0
    state = restored.state if restored else make_state(experiment, key_init)
    logging.info("replaying steps %d to %d", first_step + 1, step)

    step_functions = compile_steps(experiment, abstract_state, key_steps)
    batches = iterate_batches(experiment, first_step)
    rates = {}
    for index in range(first_step, step):
        program = experiment.program_of_step(index)
        state, metrics = step_functions[program](state, next(batches), key_steps)
        rates[index + 1] = metrics["learning_rate"]
    lines = logged_lines(workdir)
    changed = changed_rates(rates, lines, config.optim.learning_rate)
    comparisons = [
        Comparison(name, float(metrics[name]), _logged(lines.get(step, {}), logged), not changed)
        for name, logged in COMPARED.items()
    ]
    if jax.process_index() == 0:
        skipped = ", skipped" if float(metrics["is_skipped"]) else ""
        name = experiment.programs[program].name
        print(f"step {step}, {name}{skipped}, from step {first_step}:")
        print("\n".join(map(str, comparisons)))
    return all(comparison.is_equal is not False for comparison in comparisons)


def logged_lines(workdir: pathlib.Path) -> dict[int, dict[str, Any]]:
    """Return the lines that hold a step's own figures, by step; of one logged twice the later."""
    lines = read_metrics(workdir / METRICS_FILE)
    return {line["step"]: line for line in lines if COMPARED["loss"] in line}


def changed_rates(
    rates: Mapping[int, Any], lines: Mapping[int, Mapping[str, Any]], peak: float
) -> list[int]:
    """Return the replayed steps that were logged with another learning rate.

    Args:
        rates: of each replayed step.
        lines: of the logged ones.
        peak: `optim.learning_rate`.
    """
    logged = {step: lines[step].get("learning_rate") for step in rates if step in lines}
    return [
        step
        for step, rate in logged.items()
        if rate is not None and not is_same_rate(rate, float(rates[step]), peak)
    ]


def _logged(line: Mapping[str, Any], name: str) -> float | None:
    """The logged figure; a null stands for one that was not finite."""
    if name not in line:
        return None
    return math.nan if line[name] is None else float(line[name])
