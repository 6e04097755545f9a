"""Sweeps: every point once, finished ones skipped, one table with the best first, one plot."""

import json
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import pytest

from launch import sweep
from launch.sweep_summary import draw_sweep, order_points, write_table
from tests.launch.stand_ins import Cloud, commands_of
from tests.tiny import flags_of_sizes
from tpdiff_jax.command_line import ExitCode

RATE, STRIDES = "optim.learning_rate", "pyramid.frame_strides"
TINY = [flag for flag in flags_of_sizes() if RATE not in flag]
GRID = [f"--grid={RATE}=1e-3,3e-3", *TINY]


def interval(mean: float, sd: float | None = None) -> dict[str, Any]:
    """Return a mean as summaries hold it."""
    return {"mean": mean, "sd": sd, "low": None, "high": None, "n": 1}


POINTS = {"a": {RATE: "1e-3"}, "b": {RATE: "3e-3"}, "c": {RATE: "2e-1"}}
INFO = {
    "loss": {"direction": "lower"},
    "accuracy": {"direction": "higher"},
    "speed": {"direction": "match"},
}
FINAL = {
    "a": {"loss": interval(3.0), "accuracy": interval(0.5), "speed": interval(1.6)},
    "b": {"loss": interval(1.0, 0.25), "accuracy": interval(0.25), "speed": interval(0.0)},
    "c": {},
}
SUMMARY = {
    "arms": [{"arm": n, "final": FINAL[n], "seconds": interval(60.0)} for n in POINTS],
    "metric_info": INFO,
    "references": {"ceiling": {"loss": 0.5, "speed": 2.0}},
}


@pytest.mark.parametrize(
    ("metric", "order"),
    [("loss", ["b", "a", "c"]), ("accuracy", ["a", "b", "c"]), ("speed", ["a", "b", "c"])],
)
def test_the_best_point_stands_first_and_an_unfinished_one_last(
    metric: str, order: list[str]
) -> None:
    assert order_points(SUMMARY, metric) == order


def test_the_table_has_a_row_for_each_point_and_reference() -> None:
    states = dict.fromkeys(POINTS, "1 of 1 finished")
    lines = write_table(SUMMARY, POINTS, states, ["b", "a", "c"], ["loss"]).splitlines()
    assert lines[0] == "| learning_rate | loss (lower) | seconds | runs |"
    assert lines[2:] == [
        "| 3e-3 | 1 ± 0.25 | 60 | 1 of 1 finished |",
        "| 1e-3 | 3 | 60 | 1 of 1 finished |",
        "| 2e-1 | - | 60 | 1 of 1 finished |",
        "| *ceiling* | 0.5 |  |  |",
    ]


def test_the_plot_has_a_dot_for_each_point(tmp_path: pathlib.Path) -> None:
    points = {n: {**p, STRIDES: "(1,)" if n == "a" else "(2,1)"} for n, p in POINTS.items()}
    assert draw_sweep(tmp_path / "sweep", SUMMARY, points, ["loss", "speed"])
    text = (tmp_path / "sweep.svg").read_text()
    assert (tmp_path / "sweep.png").stat().st_size > 5000
    for word in ("learning_rate", "frame_strides", "loss", "speed", "(2,1)", "ceiling"):
        assert f">{word}</text>" in text
    assert not draw_sweep(tmp_path / "none", SUMMARY, points, ["frechet"])
    assert not (tmp_path / "none.png").exists()


def test_a_dry_run_prints_the_command_of_every_run_and_starts_none(
    cloud: Cloud, tmp_path: pathlib.Path
) -> None:
    out = cloud.launch("sweep", f"--out={tmp_path}/o", *GRID, "--seeds=0,1", "--dry-run")
    assert out.returncode == 0, out.stderr
    commands = commands_of(out.stdout)
    assert [flag for command in commands for flag in command if "seed" in flag] == [
        *(f"--workdir={tmp_path}/o/runs/learning_rate_1e-3_seed_0", "--config.train.seed=0"),
        *(f"--workdir={tmp_path}/o/runs/learning_rate_3e-3_seed_0", "--config.train.seed=0"),
        *(f"--workdir={tmp_path}/o/runs/learning_rate_1e-3_seed_1", "--config.train.seed=1"),
        *(f"--workdir={tmp_path}/o/runs/learning_rate_3e-3_seed_1", "--config.train.seed=1"),
    ]
    assert all(set(TINY) <= set(command) for command in commands)
    assert not (tmp_path / "o").exists()


def test_submitted_runs_are_jobs_of_their_own_and_finished_ones_are_skipped(
    cloud: Cloud, tmp_path: pathlib.Path
) -> None:
    cloud.script("0 0 0")
    (cloud.folder / "job_state").write_text("RUNNING")
    cloud.put("python_of_the_cluster", 'exec "$FAKE_PYTHON" -S "$FAKE_TRAINER" "$@"')
    done = tmp_path / "o" / "runs" / "learning_rate_3e-3_seed_0"
    done.mkdir(parents=True)
    (done / "results.json").write_text("{}")
    grid = [f"--grid={RATE}=1e-3,3e-3,9e-3", *TINY]
    python = cloud.bin / "python_of_the_cluster"
    out = cloud.launch(
        *("sweep", f"--out={tmp_path}/o", *grid, "--name=lr"),
        f"--submit=slurm --nodes=2 --python='{python}'",
    )
    assert out.returncode == 0, out.stderr
    jobs = cloud.lines("sbatch.jsonl")
    assert [(job["job_name"], job["nodes"]) for job in jobs] == [("lr-000", "2"), ("lr-002", "2")]
    argvs = [start["argv"] for start in cloud.lines("starts_worker0.jsonl")]
    assert [[f for f in argv if "learning_rate=" in f] for argv in argvs] == [
        [f"--config.{RATE}=1e-3"],
        [f"--config.{RATE}=9e-3"],
    ]


def test_a_launcher_that_refuses_ends_the_sweep(cloud: Cloud, tmp_path: pathlib.Path) -> None:
    out = cloud.launch("sweep", f"--out={tmp_path}/o", *GRID, "--submit=slurm --nodes=0")
    assert out.returncode == 2
    assert out.stderr.count("--nodes is 0; allowed: at least 1") == 1
    cloud.put("sbatch", "exit 1")
    out = cloud.launch("sweep", f"--out={tmp_path}/o", *GRID, "--submit=slurm")
    assert out.returncode == 1
    assert "not done: learning_rate_1e-3_seed_0, learning_rate_3e-3_seed_0" in out.stderr


def test_a_launcher_that_ctrl_c_stopped_stops_the_sweep(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    jobs: list[Sequence[str]] = []

    def stopped(job: Sequence[str]) -> int:
        jobs.append(job)
        return ExitCode.INTERRUPTED

    monkeypatch.setattr(sweep, "LAUNCHERS", {"tpu_vm": stopped})
    assert sweep.main([f"--out={tmp_path}/o", *GRID, "--submit=tpu_vm run"]) == 3
    assert len(jobs) == 1, "no slice is asked for after Ctrl-C"
    assert "stopped at learning_rate_1e-3_seed_0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--grid=optim.speed=1,2"], "speed"),
        ([f"--grid={RATE}=fast"], "fast"),
        ([f"--grid={STRIDES}=(4,3,1)"], "pyramid.frame_strides"),
        (["--grid=train.seed=0,1"], "--seeds=0,1,2"),
        ([f"--grid={RATE}=1", f"--random={RATE}=log(1,2)"], "--grid or --random, not both"),
        (["--config=configs/ddim.py"], "configs/ddim.py has no sweep()"),
        (["--metrics=beauty"], "no figure is called beauty"),
        (["--sort-by=beauty"], "no figure is called beauty"),
        (["--submit=cloud"], "--submit is 'cloud'; allowed: 'gke', 'slurm', 'tpu_vm'"),
        (["--submit= "], "--submit is ''; allowed: 'gke', 'slurm', 'tpu_vm'"),
        (["--submit="], "--submit is ''; allowed: 'gke', 'slurm', 'tpu_vm'"),
        (["--workers=1000"], "--workers=1000"),
        (["--seeds=0,0"], "--seeds=0,0; allowed: whole numbers that differ"),
        (["--seeds=a"], "--seeds=a; allowed: whole numbers that differ"),
        (["--config=configs/none.py"], "--config=configs/none.py is not a file"),
        (["--grids=a.b=1"], "--grids=a.b=1"),
    ],
)
def test_bad_input_is_one_clear_line(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path, arguments: list[str], named: str
) -> None:
    assert sweep.main([f"--out={tmp_path}/o", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sweep: error: ") and named in line
    assert not (tmp_path / "o").exists()


def test_a_shipped_config_goes_by_its_name_and_only_files_that_are_there_are_told(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    words = [f"--out={tmp_path}/o", "--config=flow", *GRID, "--only=summary"]
    assert sweep.main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {tmp_path}/o/sweep.json, sweep.md"
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["sweep.json", "sweep.md"]
    assert (tmp_path / "o" / "sweep.md").read_text().startswith("# Sweep of configs/flow.py\n")


@pytest.mark.slow
def test_a_sweep_trains_what_is_missing_and_compares_all(
    cloud: Cloud, tmp_path: pathlib.Path
) -> None:
    out = tmp_path / "o"
    first = cloud.launch("sweep", f"--out={out}", *GRID, timeout=1800)
    assert first.returncode == 0, first.stderr
    finished = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/results.json")}
    assert {path.parent.name for path in finished} == {
        "learning_rate_1e-3_seed_0",
        "learning_rate_3e-3_seed_0",
    }
    shutil.rmtree(out / "runs" / "learning_rate_1e-3_seed_0")
    grid = [f"--grid={RATE}=1e-3,3e-3", *TINY]
    second = cloud.launch("sweep", f"--out={out}", *grid, timeout=1800)
    assert second.returncode == 0, second.stderr
    kept, again = sorted(out.glob("runs/*/results.json"), reverse=True)
    assert kept.stat().st_mtime_ns == finished[kept]
    assert again.stat().st_mtime_ns > finished[again]

    summary = json.loads((out / "sweep.json").read_text())
    values = {row["arm"]: row["final"]["frechet"]["mean"] for row in summary["arms"]}
    for name, value in values.items():
        results = json.loads((out / "runs" / f"{name}_seed_0" / "results.json").read_text())
        assert value == pytest.approx(results["metrics"]["frechet"], rel=1e-6)
    assert summary["order"] == sorted(values, key=lambda name: values[name])
    page = (out / "sweep.md").read_text()
    assert page.count("1 of 1 finished") == 2 and "*ceiling*" in page
    for name in ("sweep.png", "sweep.svg", "curves.png", "curves.svg"):
        assert (out / name).stat().st_size > 5000
    shutil.rmtree(out / "runs" / "learning_rate_1e-3_seed_0")
    only = cloud.launch("sweep", f"--out={out}", *grid, "--only=summary")
    assert only.returncode == 0, only.stderr
    assert "0 of 1 finished, 0/6 steps" in (out / "sweep.md").read_text()
    other = cloud.launch("sweep", f"--out={out}", *grid, "--config.train.batch_size=16")
    assert other.returncode == 2
    assert "train.batch_size: there 8, planned 16" in other.stderr
