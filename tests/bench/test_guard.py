"""The guard's bench compares with a step that differs in nothing but the guard."""

import json

import jax
import numpy as np
import pytest

from bench import guard
from tests.test_train_step import batch, init, make_task  # noqa: F401 a fixture
from tpdiff_jax.train_state import state_of_params
from tpdiff_jax.train_step import train_step


def test_the_unguarded_step_trains_as_the_guarded_one(batch):  # noqa: F811
    task, key = make_task(), jax.random.key(0)
    state = state_of_params(task, init(key), key)
    guarded, _ = train_step(task, 0, state, batch, key)
    unguarded, metrics = guard.unguarded_step(task, 0, state, batch, key)
    assert {"loss", "grad_norm"} <= set(metrics)
    assert int(unguarded.step) == int(guarded.step) == 1
    for name, value in guarded.params.items():
        np.testing.assert_array_equal(value, unguarded.params[name])


def test_the_page_says_by_what_share_a_guarded_step_is_longer(monkeypatch, tmp_path, capsys):
    seconds = {
        "guarded 0": np.array([2.02, 4.04, 1.01]),
        "unguarded 0": np.array([2.0, 4.0, 1.0]),
        "guarded 2": np.array([6.18, 12.36, 3.09]),
        "unguarded 2": np.array([6.0, 12.0, 3.0]),
    }
    monkeypatch.setattr(guard, "step_case", lambda *_: None)
    monkeypatch.setattr(guard, "time_interleaved", lambda *_, **__: seconds)
    assert guard.main([f"--out={tmp_path}", "--clock=cpu", "--stages", "0", "2"]) == 0
    steps = json.loads((tmp_path / "guard.json").read_text())["steps"]
    assert steps["stage 0"]["extra_share"]["median"] == pytest.approx(0.01)
    assert steps["mean of them"]["extra_share"]["median"] == pytest.approx(0.025)
    page = (tmp_path / "guard.md").read_text()
    assert "| stage 2 | 6000.0 [4500.0, 9000.0] | +3.00 [+3.00, +3.00] |" in page
    assert "CPU time" in page and page in capsys.readouterr().out


def test_bad_input_is_one_line(capsys):
    assert guard.main(["--out=x", "--config.train.num_steps=many"]) == guard.EXIT_BAD_INPUT
    assert "num_steps" in capsys.readouterr().err
