"""The guard's bench compares with a step that differs in nothing but the guard."""

import jax
import numpy as np
import pytest

from bench import guard
from tests.test_train_step import batch, init, make_task  # noqa: F401 a fixture
from tpdiff_jax.train_step import init_state, train_step


def test_the_unguarded_step_trains_as_the_guarded_one(batch):  # noqa: F811
    task, key = make_task(), jax.random.key(0)
    state = init_state(task, init, key)
    guarded, _ = train_step(task, 0, state, batch, key)
    unguarded, metrics = guard.unguarded_step(task, 0, state, batch, key)
    assert {"loss", "grad_norm"} <= set(metrics)
    assert int(unguarded.step) == int(guarded.step) == 1
    for name, value in guarded.params.items():
        np.testing.assert_array_equal(value, unguarded.params[name])


def test_the_figure_is_the_extra_share_of_a_step(monkeypatch):
    seconds = {"guarded": np.array([2.02, 4.04, 1.01]), "unguarded": np.array([2.0, 4.0, 1.0])}
    monkeypatch.setattr(guard, "_case", lambda *_: None)
    monkeypatch.setattr(guard, "time_interleaved", lambda *_, **__: seconds)
    assert guard.measure(None, 0, 3, 0.0).median == pytest.approx(0.01)


def test_bad_input_is_one_line(capsys):
    assert guard.main(["--config.train.num_steps=many"]) == guard.EXIT_BAD_INPUT
    assert "num_steps" in capsys.readouterr().err
