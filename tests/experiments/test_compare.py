"""The command: bad input is one line, and a grid runs, sums up and is not run twice."""

import json

import pytest

from experiments.compare import main
from tests.tiny import flags_of_sizes


@pytest.mark.parametrize(
    "flags, told",
    [
        (["--config.alignment.mode=closest"], "alignment.mode"),
        (["--config.train.speed=1"], "speed"),
        (["--arms=best"], "--arms: no best; there are flow_pyramid"),
        (["--metrics=beauty"], "no figure is called beauty"),
        (["--speedup=nearest_train_distance"], "no speed-up for nearest_train_distance"),
        (["--step=1"], "--step=1 must be an option"),
        (["--seeds="], "--seeds=; allowed: whole numbers that differ, at least one"),
        (["--seeds=0,1,0"], "--seeds=0,1,0; allowed: whole numbers that differ"),
        (["--workers=1000"], "--workers=1000 must lie between"),
    ],
)
def test_bad_input_ends_with_one_line(flags, told, tmp_path, capsys):
    assert main(["--grid=main", f"--out={tmp_path}", *flags_of_sizes(), *flags]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and told in lines[0]


def test_the_plan_alone_writes_nothing(tmp_path, capsys):
    flags = ["--grid=main", f"--out={tmp_path}", "--seeds=0", "--only=plan", *flags_of_sizes()]
    assert main(flags) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_grid_runs_sums_up_and_is_not_run_twice(tmp_path, capsys):
    flags = ["--grid=main", "--arms=flow_vanilla", "--seeds=5", f"--out={tmp_path}"]
    flags += [*flags_of_sizes(), "--config.train.eval_every_steps=2"]
    assert main(flags) == 0
    folder = tmp_path / "runs" / "flow_vanilla_seed_5"
    assert json.loads((folder / "results.json").read_text())["seeds"]["train"] == 5
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["arms"][0]["seeds"] == [5]
    assert summary["equal"]["flops"][-1]["values"]["flow_vanilla"]["frechet"]["n"] == 1
    assert "# Grid main" in (tmp_path / "summary.md").read_text()
    assert (tmp_path / "curves.png").is_file()
    written = (folder / "results.json").stat().st_mtime_ns
    assert main(flags) == 0
    assert (folder / "results.json").stat().st_mtime_ns == written
    assert main([*flags, "--config.optim.learning_rate=0.5"]) == 2
    assert "holds another run" in capsys.readouterr().err
