"""The bench of trees: a tree beside itself, the page's ratios, and a run that fails."""

import pytest

from bench import trees
from tests.tiny import flags_of_sizes


@pytest.mark.slow
def test_a_run_is_measured_from_outside() -> None:
    flags = ["--config=configs/flow.py", *flags_of_sizes(), "--config.train.num_steps=40"]
    flags += ["--config.pyramid.frame_strides=(1,)", "--config.train.checkpoint_every_steps=40"]
    found = trees.run_once(trees.REPO, flags)
    assert 0 < found["step"] < found["first_step"] and 0.1 < found["peak"] < 10


def test_a_run_that_fails_is_shown() -> None:
    with pytest.raises(trees.RunFailed, match="nosuch"):
        trees.run_once(trees.REPO, ["--config=configs/flow.py", "--nosuch=1"])


def test_the_page_shows_ratios_of_a_round() -> None:
    one = {"step": 1.0, "first_step": 10.0, "peak": 2.0}
    half = {name: 0.5 * value for name, value in one.items()}
    third = {name: 0.3 * value for name, value in one.items()}
    rounds = [{"now": half, "before": one}, {"now": third, "before": one}]
    page = trees.write_page({"command": "c", "device": {"machine": "m"}, "rounds": rounds})
    assert "| a step, CPU s | 1 | 0.4 | 0.40 [0.30, 0.50] |" in page
