"""A longer run and its learning rate: both rates are said, and the old schedule may be kept."""

import math
import pathlib
from typing import Any

import jax.numpy as jnp
import pytest

from tests.tiny import tiny_config
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.optim.optimizer import OptimizerSpec, make_schedule
from tpdiff_jax.run_folder import run_config
from tpdiff_jax.training.schedule_change import announce_schedule

PEAK = 1e-3


def cosine(step: int, length: int) -> float:
    """The rate without warm-up, by hand: half a cosine from the peak to zero."""
    return PEAK * 0.5 * (1 + math.cos(math.pi * min(step / length, 1.0)))


def config(num_steps: int, **fields: Any) -> Any:
    values = {"optim__warmup_steps": 0, "train__num_steps": num_steps, **fields}
    return tiny_config(pyramid__frame_strides=(1,), optim__learning_rate=PEAK, **values)


def said(caplog: pytest.LogCaptureFixture, saved: Any, now: Any, updates: int) -> list[str]:
    """What the log says when a run of `saved` goes on as `now`."""
    caplog.clear()
    with caplog.at_level("WARNING", logger="absl"):
        announce_schedule(build_experiment(now), saved, updates)
    return [record.getMessage() for record in caplog.records]


def test_a_schedule_may_be_shorter_or_longer_than_the_run() -> None:
    for length in (50, 400):
        spec = OptimizerSpec(learning_rate=PEAK, warmup_steps=0, schedule_steps=length)
        for num_steps in (50, 100, 400):
            schedule = make_schedule(spec, num_steps)
            for step in (0, 10, 49, 50, 99):
                assert float(schedule(jnp.int32(step))) == pytest.approx(
                    cosine(step, length), rel=1e-5, abs=1e-9
                )
    default = make_schedule(OptimizerSpec(learning_rate=PEAK, warmup_steps=0), 100)
    assert float(default(jnp.int32(50))) == pytest.approx(PEAK / 2)
    with pytest.raises(ValueError, match=r"optim\.schedule_steps is -1"):
        OptimizerSpec(schedule_steps=-1)


def test_both_rates_are_said_where_a_longer_run_jumps(caplog: pytest.LogCaptureFixture) -> None:
    (line,) = said(caplog, config(100), config(200), 84)
    assert f"from {cosine(83, 100):.3g} to {cosine(84, 200):.3g}" in line
    assert f"{cosine(84, 100):.3g}" in line and "--config.optim.schedule_steps=100 keeps" in line


@pytest.mark.parametrize(
    ("saved", "now", "updates"),
    [
        (config(100), config(100), 50),
        (config(100), config(200, optim__schedule_steps=100), 50),
        (config(100, optim__schedule_steps=300), config(200, optim__schedule_steps=300), 50),
        (config(100, optim__schedule="constant"), config(200, optim__schedule="constant"), 50),
        (config(100), config(200), 0),
        (None, config(200), 0),
    ],
)
def test_nothing_is_said_where_the_rate_goes_on(
    saved: Any, now: Any, updates: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert [line for line in said(caplog, saved, now, updates) if "goes from" in line] == []


@pytest.mark.parametrize(
    ("saved", "now", "updates"),
    [
        (config(100), config(60), 50),  # a shorter run
        (config(200, optim__schedule_steps=100), config(200), 50),
        # The warm-up is a tenth of the schedule at most, so that a constant rate changes too.
        (
            config(40, optim__schedule="constant", optim__warmup_steps=20),
            config(400, optim__schedule="constant", optim__warmup_steps=20),
            6,
        ),
    ],
)
def test_every_other_change_of_the_rate_is_said_as_well(
    saved: Any, now: Any, updates: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert [line for line in said(caplog, saved, now, updates) if "goes from" in line]


def test_a_config_of_before_has_no_such_field_and_its_run_may_take_it(
    caplog: pytest.LogCaptureFixture, tmp_path: pathlib.Path
) -> None:
    run_config.save_config(tmp_path, config(100))
    saved = run_config.load_config(tmp_path)
    del saved.optim.schedule_steps
    run_config.check_same_run(saved, config(200, optim__schedule_steps=100))
    assert build_experiment(saved).train.num_steps == 100
    assert said(caplog, saved, config(200), 84)
    decided = run_config.deciding_fields
    assert decided(saved) == decided(config(200, optim__schedule_steps=100))


def test_a_schedule_that_ends_before_the_run_is_said_to(caplog: pytest.LogCaptureFixture) -> None:
    lines = said(caplog, None, config(200, optim__schedule_steps=100), 0)
    assert "ends after 100 of train.num_steps=200 steps: the learning rate is 0" in lines[0]
