"""Figures of committed results are drawn from their JSON alone, and arms can be told apart."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments import redraw
from experiments.analysis.aggregate import summarize
from experiments.analysis.curves import AXES, Curve
from experiments.convergence import speedups_by_target
from experiments.grid.arms import Arm
from experiments.pages.final_figures import draw_final_figures
from tests.tiny import REPO
from tpdiff_jax.files.json_files import write_json
from tpdiff_jax.report import style

RESULTS = REPO / "docs" / "results"
SUMMARY = redraw.read_summary(RESULTS / "convergence.json")


def pixels_of(path, colour):
    """Count the pixels of exactly this colour."""
    image = np.asarray(Image.open(path).convert("RGB"))
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((image == wanted).all(axis=-1).sum())


def distinct_colours(path):
    """Return the strong colours that cover over 100 pixels and differ by over 60 of 255 in one."""
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    kept: list[np.ndarray] = []
    for i in np.argsort(-counts):
        colour = colours[i].astype(int)
        is_strong = counts[i] > 100 and np.ptp(colour) > 60
        if is_strong and all(np.abs(colour - other).max() > 60 for other in kept):
            kept.append(colour)
    return kept


@pytest.mark.parametrize(
    "name, num_colours",  # one of the six arms of the last has nearly a floor's colour
    [("main_figures", 4), ("convergence_speedups", 4), ("convergence_curves", 6)]
    + [("convergence_figures", 5)],
)
def test_arms_of_a_committed_picture_have_colours_that_differ(name, num_colours):
    assert len(distinct_colours(RESULTS / f"{name}.png")) >= num_colours


def test_every_arm_has_its_own_colour_in_a_picture_that_is_drawn_now(tmp_path):
    summary = redraw.read_summary(RESULTS / "main.json")
    redraw.redraw(summary, tmp_path / "main", ["frechet", "label_accuracy"])
    for colour in style.LINE_COLOURS[:4]:
        assert pixels_of(tmp_path / "main_figures.png", colour) > 50, colour
    assert pixels_of(tmp_path / "main_figures.png", style.LINE_COLOURS[6]) == 0
    assert len(distinct_colours(tmp_path / "main_figures.png")) >= 4


def test_the_speed_ups_that_are_drawn_are_those_of_the_table():
    """The table was made from the runs themselves, at full precision."""
    curves = redraw.stored_curves(SUMMARY)
    baselines = {row["arm"]: row["baseline"] for row in SUMMARY["speedups"]}
    arms = [Arm(name=arm, overrides={}, baseline=base) for arm, base in baselines.items()]
    metrics = list(dict.fromkeys(row["metric"] for row in SUMMARY["speedups"]))
    drawn = {
        (row["arm"], row["metric"], row["axis"], point["share"]): point
        for row in speedups_by_target(arms, curves, SUMMARY, metrics)
        for point in row["points"]
    }
    compared = 0
    for row in SUMMARY["speedups"]:
        if row["ratio"] is None:
            continue
        point = drawn[row["arm"], row["metric"], row["axis"], row["share"]]
        assert point["ratio"]["kind"] == row["ratio"]["kind"]
        assert point["ratio"]["value"] == pytest.approx(row["ratio"]["value"], rel=2e-3)
        for end in ("low", "high"):
            wanted = row[end]
            assert point[end] == (wanted and pytest.approx(wanted, rel=1e-2))
        compared += 1
    assert compared > 100


def test_points_and_intervals_lie_where_the_summary_says(tmp_path):
    arms = [
        {"arm": "a", "final": {"x": {"mean": 2.0, "low": 1.0, "high": 4.0}, "y": None}},
        {"arm": "b", "final": {"x": {"mean": 3.0, "low": None, "high": None}}},
        {"arm": "c", "final": {"x": None}},
    ]
    figure = draw_final_figures(tmp_path / "f", arms, ["x", "y", "z"], {"frozen": {"x": 5.0}})
    panel = figure.axes[0]
    lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in panel.lines]
    assert lines == [
        ([1.0, 4.0], [0, 0]),
        ([2.0], [0]),
        ([3.0], [1]),
        ([5.0, 5.0], [0, 1]),
    ]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["a", "b", "c"]
    looks = [
        (line.get_color(), line.get_marker()) for line in panel.lines if len(line.get_xdata()) == 1
    ]
    assert len(set(looks)) == 2
    assert draw_final_figures(tmp_path / "g", arms, ["z"], {}) is None
    assert not (tmp_path / "g.png").exists()


def test_the_command_writes_what_the_summary_has_numbers_for(tmp_path, capsys):
    small = dict(SUMMARY)
    small.pop("curves")
    (tmp_path / "small.json").write_text(json.dumps(small))
    out = tmp_path / "new"
    words = [f"--summary={tmp_path / 'small.json'}", f"--out={out}", "--metrics=frechet"]
    assert redraw.main(words) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"small.json", "new_figures.png"}
    assert "new_figures.png" in capsys.readouterr().out


def test_what_compare_writes_is_redrawn_with_its_curves(tmp_path):
    """It counts first crossings, and says so nowhere."""
    results = {
        "counts": {"steps": 4},
        "metric_info": {"frechet": {"name": "frechet", "direction": "lower", "unit": "1"}},
    }
    curves = [
        Curve(arm, seed, {axis: np.array([1.0, 2.0, 4.0]) for axis in AXES}, figures, results)
        for seed in (0, 1)
        for arm, figures in (
            ("vanilla", {"frechet": np.array([9.0, 6.0, 4.0])}),
            ("pyramid", {"frechet": np.array([8.0, 4.0, 5.0])}),
        )
    ]
    arms = [
        Arm(name="vanilla", overrides={}),
        Arm(name="pyramid", overrides={}, baseline="vanilla"),
    ]
    summary = {"grid": "main", "seeds": [0, 1]} | summarize(arms, curves, ["frechet"])
    write_json(tmp_path / "summary.json", summary)
    words = [f"--summary={tmp_path / 'summary.json'}", f"--out={tmp_path / 'new'}"]
    assert redraw.main([*words, "--metrics=frechet"]) == 0
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn == {f"new_{what}.png" for what in ("figures", "curves", "speedups")}
    (row, *_) = speedups_by_target(arms, curves, summary, ["frechet"])
    assert row["points"][-1]["ratio"] == {"value": 2.0, "kind": "="}


@pytest.mark.parametrize("text", ["[]", "{", "{}", '{"arms": []}', '{"arms": [{"arm": "a"}]}'])
def test_what_is_no_summary_is_one_line_and_code_2(tmp_path, capsys, text):
    (tmp_path / "s.json").write_text(text)
    assert redraw.main([f"--summary={tmp_path / 's.json'}", f"--out={tmp_path / 'o'}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("redraw: error: ") and len(said.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["s.json"]
