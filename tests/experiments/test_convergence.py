"""The convergence experiment on written curves with known speed-ups, and its choices."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import convergence
from experiments.analysis.curves import Curve
from experiments.convergence import main
from experiments.grid.counted_flops import StepCost, count_step_cost, with_counted_flops
from experiments.grid.grids import GRIDS
from experiments.learning_rates import choose_rates, sweep_grid, sweep_name, with_rates
from tests.tiny import flags_of_sizes, tiny_config
from tpdiff_jax.data.step_schedule import stage_of_step
from tpdiff_jax.experiment.build import build_experiment

FRECHET = {"name": "frechet", "direction": "lower", "unit": "1", "meaning": ""}
SPEEDS = {"flow_vanilla": 1.0, "flow_tpdiff": 2.5, "flow_pyramid": 0.4}
SEEDS = (0, 1, 2)
FLAGS = [
    *flags_of_sizes(),
    "--config.train.num_steps=400",
    "--arms=flow_tpdiff,flow_pyramid",
    "--metrics=frechet",
]


def write_run(folder, arm, seed, num_steps):
    """A run whose distance falls with a power of the videos seen, `SPEEDS[arm]` times as fast."""
    folder.mkdir(parents=True)
    jitter = 1.1 ** (seed - 1)
    lines = []
    for step in np.unique(np.linspace(num_steps / 10, num_steps, 10).astype(int)).tolist():
        figure = 900.0 * (SPEEDS[arm] * jitter ** (arm == "flow_tpdiff") * step) ** -0.5
        spent = {"samples_seen": 8 * step, "train_flops": 1.0 * step, "train_seconds": 0.1 * step}
        lines.append({"step": step, "eval/frechet": figure, **spent})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = {
        "counts": {"steps": num_steps},
        "metric_info": {"frechet": FRECHET},
        "references": {"ceiling": {"frechet": 1.5}},
        "timing": {"sample_flops_per_video": 24.0 if arm == "flow_vanilla" else 14.0},
        "versions": {"jax": "1"},
        "device": {"platform": "cpu"},
    }
    (folder / "results.json").write_text(json.dumps(results))


def gain_a_step(summary, kind):
    """Vanilla's mean FLOPs of a step over the pyramid's."""
    mean = {
        arm: sum(p * f for p, f in zip(cost["stage_probs"], cost[kind], strict=True))
        for arm, cost in summary["step_flops"].items()
    }
    return mean["flow_vanilla"] / mean["flow_tpdiff"]


def test_known_speed_ups_come_out_with_their_intervals(tmp_path, capsys):
    flags = [f"--out={tmp_path}", "--seeds=0,1,2", *FLAGS]
    assert main([*flags, "--only=plan"]) == 0
    planned = {
        line.split()[0]: int(line.split()[1])
        for line in capsys.readouterr().out.split("\n")
        if line
    }
    assert len(planned) == 9 and planned["flow_vanilla_seed_0"] == 400
    for arm in SPEEDS:
        for seed in SEEDS:
            name = f"{arm}_seed_{seed}"
            write_run(tmp_path / "runs" / name, arm, seed, planned[name])
    assert main([*flags, "--only=summary"]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    rows = {(row["arm"], row["axis"], row["share"]): row for row in summary["speedups"]}

    both = rows["flow_tpdiff", "samples", 1.0]
    # Ratios 2.5 / 1.1, 2.5 and 2.5 * 1.1: t_2(0.975) = 4.30265 on logs of sd log 1.1.
    half = 4.302652729911275 * math.log(1.1) / math.sqrt(3)
    assert both["ratio"] == {"value": pytest.approx(2.5, rel=1e-6), "kind": "="}
    assert both["low"] == pytest.approx(2.5 * math.exp(-half), rel=1e-6)
    assert both["high"] == pytest.approx(2.5 * math.exp(half), rel=1e-6)
    # A step of the pyramid costs less, by what the counted steps say.
    gain = gain_a_step(summary, "total")
    assert gain > 1.2
    assert rows["flow_tpdiff", "flops", 1.0]["ratio"]["value"] == pytest.approx(2.5 * gain, rel=0.1)
    # ... and of the network alone, which is all that a large network would see.
    larger = gain_a_step(summary, "network")
    assert larger > gain
    found = rows["flow_tpdiff", "network", 1.0]["ratio"]["value"]
    assert found == pytest.approx(2.5 * larger, rel=0.1)
    # The slow arm never arrives: a bound, without an interval, and said so on both pages.
    slow = rows["flow_pyramid", "samples", 1.0]
    assert slow["ratio"]["kind"] == "<" and slow["low"] is None and slow["num_reached"] == 0
    page, text = (
        (tmp_path / "convergence.html").read_text(),
        (tmp_path / "convergence.md").read_text(),
    )
    # Frechet falls as steps^-0.5: each pair's difference is that of its ends.
    ends = {
        (c["arm"], c["seed"]): c["y"]["frechet"][-1] for c in summary["curves"] if c["is_finished"]
    }
    (row,) = (row for row in summary["end_differences"] if row["arm"] == "flow_tpdiff")
    pairs = [ends["flow_tpdiff", s] - ends["flow_vanilla", s] for s in SEEDS]
    assert row["share"] == 1 and row["baseline"] == "flow_vanilla"
    assert row["metrics"]["frechet"]["mean"] == pytest.approx(np.mean(pairs))
    assert row["metrics"]["frechet"]["n"] == 3 and row["metrics"]["frechet"]["high"] < 0
    assert "Differences to vanilla" in page
    assert "2.13; 2.16" in page and "2.13; 2.16" in text and "0 of 3" in text
    assert page.count("<svg") == 2 and "<script" not in page
    assert f"2.5 [{2.5 * math.exp(-half):.3g}, {2.5 * math.exp(half):.3g}]" in text
    assert (tmp_path / "speedups.png").is_file()


def test_runs_of_several_lengths_are_the_points_of_one_curve(tmp_path, capsys):
    """Each has a schedule of its own, so that what it measured on its way does not count."""
    lengths = "--lengths=1,0.15,0.5"
    flags = [f"--out={tmp_path}", "--seeds=0,1,2", *FLAGS, "--arms=flow_tpdiff", lengths]
    assert main([*flags, "--only=plan"]) == 0
    planned = {
        line.split()[0]: int(line.split()[1])
        for line in capsys.readouterr().out.split("\n")
        if line
    }
    assert set(planned) == {
        f"{name}_seed_{seed}"
        for name in ("flow_vanilla_1", "flow_tpdiff_0.15", "flow_tpdiff_0.5", "flow_tpdiff_1")
        for seed in SEEDS
    }
    whole = planned["flow_tpdiff_1_seed_0"]
    assert planned["flow_tpdiff_0.15_seed_2"] == round(0.15 * whole)
    for name, num_steps in planned.items():
        arm, seed = name.rsplit("_", 3)[0], int(name[-1])
        write_run(tmp_path / "runs" / name, arm, seed, num_steps)
        metrics = tmp_path / "runs" / name / "metrics.jsonl"
        early = json.loads(metrics.read_text().splitlines()[0]) | {"eval/frechet": 1.0}
        metrics.write_text(json.dumps(early) + "\n" + metrics.read_text().split("\n", 1)[1])
    assert main([*flags, "--only=summary"]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    (curve,) = (c for c in summary["curves"] if (c["arm"], c["seed"]) == ("flow_tpdiff", 1))
    assert curve["x"]["samples"] == [8 * round(s * whole) for s in (0.15, 0.5, 1)]
    (row,) = (
        row for row in summary["speedups"] if row["axis"] == "samples" and row["share"] == 1.0
    )
    # Frechet falls as (2.5 steps)^-0.5: what vanilla has after 400 steps comes after 160.
    assert row["ratio"] == {"value": pytest.approx(2.5, rel=1e-6), "kind": "="}
    # Against the end of vanilla's only run: the shorter the run, the worse.
    found = [row for row in summary["end_differences"] if row["arm"] == "flow_tpdiff"]
    assert [row["share"] for row in found] == [0.15, 0.5, 1]
    means = [row["metrics"]["frechet"]["mean"] for row in found]
    assert means == sorted(means, reverse=True) and means[0] > 0 > means[-1]
    assert "ends of runs of their own" in (tmp_path / "convergence.md").read_text()


def test_a_seed_whose_longest_run_is_missing_counts_at_the_length_that_it_has(tmp_path, capsys):
    flags = [f"--out={tmp_path}", "--seeds=0,1,2", *FLAGS, "--arms=flow_tpdiff", "--lengths=0.4,1"]
    assert main([*flags, "--only=plan"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    planned = {words[0]: int(words[1]) for words in lines}
    for name, num_steps in planned.items():
        if name != "flow_tpdiff_1_seed_2":
            write_run(tmp_path / "runs" / name, name.rsplit("_", 3)[0], int(name[-1]), num_steps)
    assert main([*flags, "--only=summary"]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    (row,) = (row for row in summary["arms"] if row["arm"] == "flow_tpdiff")
    whole = planned["flow_tpdiff_1_seed_0"]
    assert row["seeds"] == [0, 1] and row["steps"] == [whole, whole]
    ends = [900.0 * (2.5 * 1.1 ** (seed - 1) * whole) ** -0.5 for seed in (0, 1)]
    assert row["final"]["frechet"]["mean"] == pytest.approx(np.mean(ends))
    (speed,) = (r for r in summary["speedups"] if r["axis"] == "samples" and r["share"] == 1.0)
    assert (speed["num_reached"], speed["num_seeds"]) == (2, 2)
    counted = {row["share"]: row["metrics"]["frechet"]["n"] for row in summary["end_differences"]}
    assert counted == {0.4: 3, 1: 2}
    assert summary["equal"]["samples"][-1]["at"] == pytest.approx(8 * 400)


@pytest.mark.parametrize(
    "flags, told",
    [
        (["--lengths=0.5,0.5"], "lengths [0.5, 0.5] must differ"),
        (["--lengths=0"], "lengths [0.0] must differ and lie above 0, up to 1"),
        (["--lengths=1.5"], "up to 1"),
        (["--lengths=nan"], "up to 1"),
        (["--lengths=half"], "could not convert string to float: 'half'"),
        (["--metrics=beauty"], "no figure is called beauty"),
        (["--arms=best"], "--arms: no best"),
        (["--seeds=,"], "--seeds=,; allowed: whole numbers that differ, at least one"),
        (["--seeds=1,1"], "--seeds=1,1; allowed"),
        (["--learning_rates=1e-3", "--sweep_seed=0"], "--sweep_seed=0 must not be one of --seeds"),
        (["--learning_rates=1e-3", "--only=summary"], "the sweep of flow_vanilla has no run"),
    ],
)
def test_bad_input_ends_with_one_line(flags, told, tmp_path, capsys):
    assert main([f"--out={tmp_path}", *flags_of_sizes(), "--arms=flow_tpdiff", *flags]) == 2
    assert told in capsys.readouterr().err


def test_the_plan_of_a_sweep_shows_its_runs_and_those_that_are_compared(tmp_path, capsys):
    flags = [f"--out={tmp_path}", *flags_of_sizes(), "--arms=flow_vanilla", "--seeds=0"]
    assert main([*flags, "--learning_rates=1e-3,2e-3", "--only=plan"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == [
        "flow_vanilla_rate_0.001_seed_1000",
        "flow_vanilla_rate_0.002_seed_1000",
        "flow_vanilla_seed_0",
    ]
    assert not list(tmp_path.iterdir())


def test_a_failed_run_of_the_sweep_is_told_and_code_1(tmp_path, monkeypatch, capsys):
    def plan_runs(grid, arms, overrides, seeds, out, lengths=()):
        return [
            SimpleNamespace(arm=arm.name, seed=seeds[0], workdir=out / f"{arm.name}_{seeds[0]}")
            for arm in arms
        ]

    def run_all(runs, workers):
        return [run for run in runs if run.arm.endswith("rate_0.002")]

    def choose(arms, *_):
        return {arm.name: 1e-3 for arm in arms}

    for name, stand_in in (
        ("plan_runs", plan_runs),
        ("run_all", run_all),
        ("choose_rates", choose),
    ):
        monkeypatch.setattr(convergence, name, stand_in)
    for name in ("show_plan", "write_pages"):
        monkeypatch.setattr(convergence, name, lambda *_: None)
    flags = [f"--out={tmp_path}", "--arms=flow_vanilla", "--seeds=0"]
    assert main([*flags, "--learning_rates=1e-3,2e-3"]) == 1
    assert "failed: flow_vanilla_rate_0.002_1000, see" in capsys.readouterr().err


def test_steps_cost_what_they_execute():
    """AdamW has no matrix products, Muon's are the same in every stage."""
    costs = {
        name: count_step_cost(
            build_experiment(tiny_config(optim__name=name, alignment__mode="none"))
        )
        for name in ("adamw", "muon")
    }
    adamw, muon = np.asarray(costs["adamw"].total), np.asarray(costs["muon"].total)
    assert adamw == pytest.approx(np.asarray(costs["adamw"].network), rel=0.1)
    assert np.ptp(muon - adamw) == 0 and (muon > adamw).all()


def test_flops_are_summed_over_the_steps_that_were_drawn():
    cost = StepCost(network=(1.0, 1.0), total=(10.0, 1.0), stage_probs=(0.5, 0.5))
    curve = Curve("a", 3, {"samples": np.array([8.0, 40.0])}, {}, None, steps=(1, 5))
    drawn = [cost.total[stage_of_step(3, step, cost.stage_probs)] for step in range(5)]
    counted = with_counted_flops(curve, cost).x
    assert counted["flops"].tolist() == [drawn[0], sum(drawn)]
    assert counted["network"].tolist() == [1.0, 5.0]


def test_every_arm_gets_the_rate_of_its_best_run():
    grid = GRIDS["convergence"]
    arms = [grid.arm("flow_vanilla"), grid.arm("ddim_tpdiff")]
    rates = [1e-3, 2e-3, 4e-3]
    swept = sweep_grid(grid, arms, rates)
    assert len(swept.arms) == 6 and swept.reference == "flow_vanilla_rate_0.001"
    finals = {"flow_vanilla": (3.0, 1.0, math.nan), "ddim_tpdiff": (2.0, 5.0, 7.0)}
    curves = {
        sweep_name(arm, rate): Curve(
            arm, 9, {"samples": np.ones(1)}, {"frechet": np.array([y])}, {}
        )
        for arm, figures in finals.items()
        for rate, y in zip(rates, figures, strict=True)
    }
    chosen = choose_rates(arms, rates, curves, "frechet", FRECHET)
    assert chosen == {"flow_vanilla": 2e-3, "ddim_tpdiff": 1e-3}
    tuned = with_rates(arms, chosen)
    assert [arm.overrides["optim.learning_rate"] for arm in tuned] == [2e-3, 1e-3]
    late = {
        name: Curve("a", 9, {"samples": np.array([1.0, 2.0])}, {"frechet": np.array(y)}, {})
        for name, y in {
            "ddim_tpdiff_rate_0.001": [5.0, 4.0],
            "ddim_tpdiff_rate_0.002": [1.0, np.nan],
        }.items()
    }
    assert choose_rates(arms[1:], rates, late, "frechet", FRECHET) == {"ddim_tpdiff": 1e-3}
    with pytest.raises(ValueError, match="the sweep of ddim_tpdiff has no run"):
        choose_rates(arms[1:], rates, {}, "frechet", FRECHET)


def test_shares_reach_windows_training_and_sampling():
    arm = GRIDS["pyramid_shapes"].arm("shares_2_1_1")
    assert arm.overrides["pyramid.stage_fractions"] == (0.5, 0.25, 0.25)
    assert arm.overrides["sample.steps_per_stage"] == (15, 8, 7)
    arm = GRIDS["pyramid_shapes"].arm("stages_4")
    assert sum(arm.overrides["sample.steps_per_stage"]) == 30
