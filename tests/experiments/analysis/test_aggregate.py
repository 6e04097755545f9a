"""Tables from curves whose means, differences and ratios are known by hand."""

import numpy as np
import pytest

from experiments.analysis.aggregate import end_differences, summarize
from experiments.analysis.curves import Curve
from experiments.grid.arms import Arm
from experiments.pages.figures import draw_curves
from experiments.pages.markdown import bounded, mean_and_bounds, mean_and_sd, number, write_summary

ARMS = [
    Arm(name="pyramid", overrides={}, baseline="vanilla"),
    Arm(name="vanilla", overrides={}),
]
INFO = {"frechet": {"name": "frechet", "direction": "lower", "unit": "1", "meaning": ""}}
RESULTS = {
    "counts": {"steps": 10},
    "metric_info": INFO,
    "references": {"ceiling": {"frechet": 1.0}, "frozen": {"frechet": 60.0}},
    "versions": {"jax": "1"},
    "device": {"platform": "cpu", "kind": "cpu", "cpu_cores": 2},
}


def curve(arm, seed, speed, shift=0.0, is_finished=True, end=1000.0):
    x = np.linspace(end / 10, end, 10)
    y = 100.0 * (speed * x) ** -0.5 + shift
    axes = {"samples": x, "flops": 3 * x, "seconds": x / 10}
    return Curve(arm, seed, axes, {"frechet": y}, RESULTS if is_finished else None)


@pytest.fixture
def curves():
    return [
        curve("pyramid", 0, 2.0),
        curve("vanilla", 0, 1.0),
        curve("pyramid", 1, 2.0),
        curve("vanilla", 1, 1.0, shift=0.5),
        curve("vanilla", 2, 1.0, is_finished=False, end=400.0),
    ]


def test_figures_at_equal_cost(curves):
    summary = summarize(ARMS, curves, ["frechet"])
    last = summary["equal"]["flops"][-1]
    assert last["at"] == 3000.0
    assert last["share"] == 1.0
    value = 100.0 * 2000.0**-0.5
    pyramid = last["values"]["pyramid"]["frechet"]
    assert (pyramid["mean"], pyramid["sd"], pyramid["n"]) == (pytest.approx(value), 0.0, 2)
    vanilla = last["values"]["vanilla"]["frechet"]
    assert vanilla["n"] == 2  # the unfinished run has not come that far
    assert vanilla["mean"] == pytest.approx(100.0 * 1000.0**-0.5 + 0.25)
    assert vanilla["sd"] == pytest.approx(0.5 / 2**0.5)
    difference = last["differences"]["pyramid"]["frechet"]
    assert difference["mean"] == pytest.approx(pyramid["mean"] - vanilla["mean"])
    assert summary["equal"]["flops"][0]["values"]["vanilla"]["frechet"]["n"] == 3


def test_speed_ups_use_finished_pairs_only(curves):
    rows = summarize(ARMS, curves[:2] + curves[-1:], ["frechet"])["speedups"]
    assert len(rows) == 9  # three axes, three shares
    for row in rows:
        assert row["num_seeds"] == 1
        assert row["ratio"] == {"value": pytest.approx(2.0), "kind": "="}


def test_the_page_and_the_figures_are_written(curves, tmp_path):
    summary = summarize(ARMS, curves, ["frechet"])
    page = write_summary("Grid test", summary, ["frechet", "unknown"])
    assert "| pyramid | 0 1 | 10 | 1000 ± 0 | 3000 ± 0 | 100 ± 0 |" in page
    assert "| *ceiling* | 1 |" in page
    assert "| pyramid | vanilla | frechet | samples | 50% |" in page
    draw_curves(tmp_path / "curves", curves, ["frechet"], RESULTS["references"])
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert "<svg" in (tmp_path / "curves.svg").read_text()


def test_a_grid_without_any_result_still_gives_a_page(tmp_path):
    summary = summarize(ARMS, [], ["frechet"])
    assert "| pyramid | - | - | - | - | - |" in write_summary("Empty", summary, ["frechet"])
    draw_curves(tmp_path / "curves", [], ["frechet"], {})
    assert not (tmp_path / "curves.png").exists()


def test_a_seed_that_diverged_is_counted_as_missing(curves):
    curves[2].y["frechet"][-3:] = np.nan
    summary = summarize(ARMS, curves, ["frechet"], "for_good")
    page = write_summary("Grid test", summary, ["frechet"])
    last = page.split("## At equal flops")[2]
    assert "| pyramid | 2.24 (n = 1) |" in last and "| vanilla | 3.41 ± 0.35 |" in last
    assert "| pyramid | - |" in page.split("## Figures of the finished runs")[1]
    row = next(row for row in summary["speedups"] if row["share"] == 1.0)
    assert (row["num_reached"], row["num_seeds"], row["ratio"]["kind"]) == (1, 2, "<")


def test_lengths_whose_shares_round_alike_are_not_mixed():
    def ends(arm, steps, figures):
        x = {"samples": np.array(steps, float)}
        return Curve(arm, 0, x, {"frechet": np.array(figures)}, RESULTS, tuple(steps))

    curves = [ends("vanilla", [3000], [5.0]), ends("pyramid", [999, 1002], [9.0, 8.0])]
    shares = {("pyramid", 999): 0.33, ("pyramid", 1002): 0.33}
    rows = end_differences(curves, {"pyramid": "vanilla"}, shares)
    assert [(row["share"], row["metrics"]["frechet"]["mean"]) for row in rows] == [
        (0.33, 4.0),
        (0.33, 3.0),
    ]


def test_cells():
    assert number(0.12345) == "0.123"
    assert number(None) == number(float("nan")) == "-"
    assert number(1.5e12) == "1.50e+12"
    assert [number(999.7), number(-999.9), number(99.7, 2)] == ["1000", "-1000", "100"]
    assert [number(99999.9), number(999.4), number(0.0009999)] == ["100000", "999", "1.00e-03"]
    one = {"mean": 0.5, "sd": None, "low": None, "high": None, "n": 1}
    assert (mean_and_sd(one), mean_and_bounds(one)) == ("0.5", "+0.5 (n = 1)")
    clear = {"mean": -2.0, "sd": 1.0, "low": -3.0, "high": -1.0, "n": 3}
    assert mean_and_bounds(clear) == "**-2 [-3, -1]**"
    assert mean_and_bounds({**clear, "high": 1.0}) == "-2 [-3, 1]"
    assert mean_and_bounds(clear, 4) == "**-2 [-3, -1]** (n = 3)"
    assert mean_and_sd(clear, 4) == "-2 ± 1 (n = 3)" and mean_and_sd(clear, 3) == "-2 ± 1"
    unknown = {"mean": float("nan"), "sd": float("nan"), "low": None, "high": None, "n": 3}
    assert mean_and_sd(unknown) == mean_and_bounds(unknown | {"mean": None}) == "-"
    assert bounded({"value": 2.0, "kind": ">"}) == ">2"
    assert bounded({"value": 2.0, "kind": "?"}) == "-"


@pytest.mark.parametrize(
    ("value", "kind", "shown"),
    [
        (2.999, ">", ">2.99"), (2.991, "<", "<3"), (1.6381, "<", "<1.64"), (0.98449, "<", "<0.985"),
        (2.5, ">", ">2.5"), (9.4561e12, ">", ">9.45e+12"), (1234.5, ">", ">1230"), (0.0, "<", "<0"),
        (2.9999, "=", "3"),
    ],
)  # fmt: skip
def test_a_bound_stays_one_when_it_is_rounded(value: float, kind: str, shown: str) -> None:
    assert bounded({"value": value, "kind": kind}) == shown
