"""Runs side by side: rows of runs, columns of labels, and one line for what does not fit."""

import numpy as np
import pytest
from PIL import Image

import tpdiff_jax
from experiments.side_by_side import main
from tests.tiny import tiny_config
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.train import train

FRAME, CELL_WIDTH, CELL_HEIGHT, GAP = 64, 68, 86, 4  # 18 pixels hold what stands under a video


class FilledRun:
    """Stands for a run whose videos are of one grey, a shade a label."""

    def __init__(self, grey, num_frames=4, fps=8.0):
        self.grey, self.num_frames, self.fps = grey, num_frames, fps

    def sample(self, *, labels, seed):
        shades = [self.grey + 10 * int(label) + seed for label in labels]
        frames = np.ones((len(labels), self.num_frames, 32, 32, 1), np.uint8)
        return frames * np.array(shades, np.uint8).reshape(-1, 1, 1, 1, 1)


@pytest.fixture
def runs(monkeypatch):
    made = {"a": FilledRun(10), "b": FilledRun(100), "short": FilledRun(0, num_frames=2)}
    made["slow"] = FilledRun(0, fps=4.0)
    monkeypatch.setattr(tpdiff_jax, "open_run", made.__getitem__)


def middle_of(page, row, column):
    return page.getpixel(
        (GAP + CELL_WIDTH * column + FRAME // 2, GAP + CELL_HEIGHT * row + FRAME // 2)
    )


def test_a_row_is_a_run_and_a_column_a_label(runs, tmp_path, capsys):
    out = tmp_path / "new" / "beside.gif"
    assert main(["--workdirs=a,b", "--labels=3,0,7", "--seed=5", f"--out={out}"]) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    with Image.open(out) as picture:
        assert picture.size == (3 * CELL_WIDTH + GAP, 2 * CELL_HEIGHT + GAP)
        page = picture.convert("L")
    found = [[middle_of(page, row, column) for column in range(3)] for row in range(2)]
    assert found == [[45, 15, 85], [135, 105, 175]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workdirs=,"], "--workdirs names no run"),
        (["--workdirs=a,b", "--names=one"], "--names has 1 entries for 2 runs"),
        (
            ["--workdirs=a,short", "--labels=1"],
            "videos [n, f, h, w, c] of short are (1, 2, 32, 32, 1), "
            "and those of a (1, 4, 32, 32, 1)",
        ),
        (
            ["--workdirs=a,slow", "--labels=1"],
            "frames per second of slow are 4, and of a 8",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(runs, tmp_path, capsys, words, message):
    assert main([*words, f"--out={tmp_path / 'beside.gif'}"]) == 2
    assert f"side_by_side: error: {message}\n" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_trained_run_is_sampled(tmp_path):
    run, out = tmp_path / "run", tmp_path / "beside.gif"
    train(build_experiment(tiny_config(train__num_steps=1)), run)
    assert main([f"--workdirs={run},{run}", "--labels=3,1", f"--out={out}"]) == 0
    with Image.open(out) as picture:
        pages = np.asarray(picture.convert("L"))
    rows = [pages[GAP + CELL_HEIGHT * i : GAP + CELL_HEIGHT * i + FRAME] for i in range(2)]
    assert np.array_equal(*rows)


def test_a_folder_that_is_no_run_is_one_line(tmp_path, capsys):
    assert main([f"--workdirs={tmp_path}", f"--out={tmp_path / 'beside.gif'}"]) == 2
    assert "side_by_side: error: " in capsys.readouterr().err
