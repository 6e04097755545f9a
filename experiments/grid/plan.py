"""From a grid to runs: how long each trains, in which folder, by which command.

Every run is the ordinary command line of the package. Training FLOPs come from the FLOP model of
the network; a step of stage i counts with the probability of that stage.
"""

import dataclasses
import itertools
import pathlib
import sys
from collections.abc import Mapping, Sequence

import jax
from ml_collections import ConfigDict

from experiments.grid.arms import Arm, Grid
from experiments.grid.overrides import merge_overrides, overrides_to_flags, read_config
from tpdiff_jax.devices.mesh import MESH_AXES
from tpdiff_jax.experiment.build import Experiment, build_experiment, leave_kernel_to_devices
from tpdiff_jax.experiment.remat_field import with_saved_choices
from tpdiff_jax.run_folder import run_config
from tpdiff_jax.run_log.json_lines import METRICS_FILE, read_metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One training run.

    Attributes:
        arm: name of the arm.
        seed: `train.seed`.
        workdir: the run's folder.
        config_file: config file of the arm.
        overrides: `group.field` -> text on the command line.
        config: the config that these give.
        num_steps: training steps.
        flops: expected training FLOPs.
    """

    arm: str
    seed: int
    workdir: pathlib.Path
    config_file: str
    overrides: Mapping[str, str]
    config: ConfigDict
    num_steps: int
    flops: float

    def command(self) -> list[str]:
        """Return the command line that starts or resumes the run."""
        return [
            *(sys.executable, "-m", "tpdiff_jax.main"),
            *(f"--config={self.config_file}", f"--workdir={self.workdir}"),
            *overrides_to_flags(self.overrides),
        ]

    def is_finished(self) -> bool:
        """Whether the run has written its results."""
        return (self.workdir / "results.json").is_file()

    def steps_done(self) -> int:
        """Return the steps that the run has logged so far."""
        lines = read_metrics(self.workdir / METRICS_FILE)
        return max((line["step"] for line in lines), default=0)


def plan_runs(
    grid: Grid,
    arms: Sequence[Arm],
    base: Mapping[str, str],
    seeds: Sequence[int],
    out: pathlib.Path,
    lengths: Sequence[float] = (),
) -> list[PlannedRun]:
    """Return the runs of a grid, seed by seed, so that every arm is seen early.

    Args:
        grid: its reference arm sets the budget.
        arms: what to compare.
        base: overrides of every run, `group.field` -> text; an arm's own win.
        seeds: values of `train.seed`.
        out: parent of the runs' folders.
        lengths: shares of an arm's training, in (0, 1]; each is a run of its own, whose schedule
            ends with it, and is measured at its end. A baseline has the longest alone. () is one
            run an arm, measured on its way.

    Raises:
        ValueError: when a length is out of range or comes twice, a config is invalid, or a folder
            holds another run than the planned one.
    """
    reference = _open_arm(grid.arm(grid.reference), base)
    flops_per_step = mean_step_flops(reference)
    if len(set(lengths)) < len(lengths) or not all(0 < share <= 1 for share in lengths):
        raise ValueError(f"lengths {list(lengths)} must differ and lie above 0, up to 1")
    runs = []
    for arm in arms:
        experiment = _open_arm(arm, base)
        own_flops = mean_step_flops(experiment)
        num_steps = equal_flops_steps(reference.train.num_steps, flops_per_step, own_flops)
        texts = merge_overrides(base, arm.overrides)
        for field in ("eval_every_steps", "sample_every_steps"):
            period = equal_share_period(
                getattr(reference.train, field), reference.train.num_steps, num_steps
            )
            texts[f"train.{field}"] = str(period)
        own = sorted(lengths) if arm.baseline else sorted(lengths)[-1:]
        for share, seed in itertools.product(own or [1.0], seeds):
            steps = max(1, round(share * num_steps))
            texts["train.num_steps"] = str(steps)
            if lengths:
                texts |= {f"train.{what}_every_steps": str(steps) for what in ("eval", "sample")}
            name = f"{arm.name}_{share:g}" if lengths else arm.name
            seeded = texts | {"train.seed": str(seed)}
            run = PlannedRun(
                arm=arm.name,
                seed=seed,
                workdir=out / "runs" / f"{name}_seed_{seed}",
                config_file=arm.config,
                overrides=seeded,
                config=read_config(arm.config, seeded),
                num_steps=steps,
                flops=steps * own_flops,
            )
            check_folder(run)
            runs.append(run)
    return sorted(runs, key=lambda run: seeds.index(run.seed))


def equal_flops_steps(reference_steps: int, reference_flops: float, own_flops: float) -> int:
    """Return the steps that cost what the reference's cost, to the nearest step, at least 1.

    Args:
        reference_steps: steps of the reference.
        reference_flops: mean FLOPs of a step of the reference.
        own_flops: mean FLOPs of a step of the arm.
    """
    return max(1, round(reference_steps * reference_flops / own_flops))


def equal_share_period(reference_period: int, reference_steps: int, own_steps: int) -> int:
    """Return the period that falls at the same shares of the budget as the reference's.

    Rounded up, so that the last period never ends one step before the run does. 0 stays 0.
    """
    return -(-own_steps * reference_period // reference_steps)


def mean_step_flops(experiment: Experiment) -> float:
    """Return the expected FLOPs of a training step, over stages and shapes of clips."""
    return experiment.mean_over_steps([program.train_flops for program in experiment.programs])


def check_folder(run: PlannedRun) -> None:
    """Refuse to reuse a folder whose run differs in any field from the planned one.

    A word such as `auto` stands for what the run has chosen in its place.

    Raises:
        ValueError: with the fields that differ.
    """
    if not (run.workdir / run_config.FILE_NAME).exists():
        return
    saved = dict(run_config.flat_fields(run_config.load_config(run.workdir)))
    planned = dict(run_config.flat_fields(with_saved_choices(run.config, run.workdir)))
    names = sorted(saved.keys() | planned.keys())
    lines = [
        f"  {name}: there {saved.get(name)!r}, planned {planned.get(name)!r}"
        for name in names
        if saved.get(name) != planned.get(name)
    ]
    if lines:
        raise ValueError(
            f"{run.workdir} holds another run; choose another --out:\n" + "\n".join(lines)
        )


def _open_arm(arm: Arm, base: Mapping[str, str]) -> Experiment:
    return open_here(arm.config, merge_overrides(base, arm.overrides))


def open_here(config_file: str, overrides: Mapping[str, str]) -> Experiment:
    """Build an experiment for its costs, on whatever devices there are here.

    Raises:
        ValueError: when the config is invalid.
    """
    here = {f"mesh.{axis}": "1" for axis in MESH_AXES} | {"mesh.data": "-1"}
    config = read_config(config_file, {**overrides, **here})
    leave_kernel_to_devices(config)
    return build_experiment(config)


def use_cpu_for_planning() -> None:
    """Keep accelerators free for the runs: this process only counts FLOPs."""
    jax.config.update("jax_platforms", "cpu")
