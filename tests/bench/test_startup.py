"""The bench of start-up: a tree against itself is as fast, and the page says what was measured."""

import numpy as np
import pytest

from bench import startup
from tpdiff_jax import main


def test_every_mode_is_timed_with_its_help_and_imports() -> None:
    assert set(startup.IMPORTS) == set(main.RUN)
    lines = startup.command_lines("W")
    for mode in main.RUN:
        assert f"{mode} --help" in lines and f"imports of {mode}" in lines


def test_a_tree_is_as_fast_as_itself() -> None:
    lines = {"nothing": ["-c", "sum(range(3_000_000))"]}
    seconds = startup.measure(lines, {"now": startup.REPO, "before": startup.REPO}, rounds=3)
    assert {len(column) for column in seconds["nothing"].values()} == {3}
    now, before = (np.array(seconds["nothing"][which]) for which in ("now", "before"))
    assert 0.3 < np.median(before / now) < 3 and min(seconds["nothing"]["clock"]) > 0.01


@pytest.mark.parametrize("is_compared", [True, False])
def test_the_page(is_compared: bool) -> None:
    seconds = {"now": [0.1, 0.1, 0.2], "clock": [0.2, 0.3, 0.4], "before": [0.4, 0.5, 0.6]}
    if not is_compared:
        del seconds["before"]
    report = {
        "command": "python -m bench.startup",
        "device": {"machine": "x86_64"},
        "rounds": 3,
        "seconds": {"--help": seconds},
    }
    page = startup.write_page(report)
    assert ("| --help | 0.1 | 0.3 | 0.5 | 4 | 3.50 to 4.50 |" in page) == is_compared
    assert ("| --help | 0.1 | 0.3 |" in page) and "3 rounds" in page
