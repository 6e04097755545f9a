"""The latency table: both twins with equally many calls, ratios within a round."""

import json

import jax
import numpy as np
import pytest

from bench import latency
from tests.tiny import flags_of_sizes


def test_ratios_are_taken_within_a_round():
    rows = []
    seconds = {"c vanilla": np.array([2.0, 8.0, 3.0]), "c pyramid": np.array([1.0, 4.0, 2.0])}
    twins = latency.build_twins("configs/flow.py", {})
    rows.append(latency.latency_row("c", twins, seconds))
    assert rows[0]["ratio"]["median"] == 2.0 and rows[0]["vanilla"]["median"] == 3.0
    assert sum(rows[0]["steps"]) == sum(rows[0]["vanilla_steps"]) == 30
    assert rows[0]["flop_ratio"] == pytest.approx(12 / 7, rel=0.02)
    report = {
        "rows": rows,
        "videos": 1,
        "command": "x",
        "device": {"platform": "cpu", "kind": "cpu", "num_devices": 1},
    }
    assert "| c | 10 + 10 + 10 | 3 [2.5, 5.5] | 2 [1.5, 3] | 2 [1.75, 2] |" in latency.write_page(
        report
    )


def test_both_twins_are_timed_and_written(tmp_path):
    flags = [f"--out={tmp_path}", "--configs=configs/flow.py", "--rounds=2", *flags_of_sizes()]
    assert latency.main(flags) == 0
    report = json.loads((tmp_path / "latency.json").read_text())
    assert {len(column) for column in report["seconds"].values()} == {2}
    assert "configs/flow.py" in (tmp_path / "latency.md").read_text()


def test_bad_input_is_one_line(tmp_path, capsys):
    flags = [f"--out={tmp_path}", "--config.sample.num_steps=two"]
    assert latency.main(flags) == 2
    assert "num_steps" in capsys.readouterr().err


def test_quick_parameters_have_the_shapes_and_are_not_zero():
    experiment = latency.build_twins("configs/flow.py", {}).pyramid
    shapes = latency.abstract_params(experiment)
    params = latency.quick_params(shapes)
    jax.tree.map(lambda a, b: np.testing.assert_equal((a.shape, a.dtype), (b.shape, b.dtype)),
                 params, shapes)  # fmt: skip
    largest = max(jax.tree.leaves(params), key=lambda a: a.size)
    assert abs(float(np.std(largest)) - 0.02) < 1e-3 and abs(float(np.mean(largest))) < 1e-3
