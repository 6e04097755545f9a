"""Progress: a bar on a terminal, sparse lines elsewhere, an honest estimate in both."""

import io

import pytest

from tpdiff_jax.run_log import progress
from tpdiff_jax.run_log.progress import Progress, duration


class _Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when told: `clock[0] += seconds`."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_file_gets_the_first_and_last_line_and_few_between(clock):
    stream = io.StringIO()
    with Progress(100, stream=stream, log_seconds=30) as bar:
        for step in range(1, 101):
            clock[0] += 1
            bar.update(step, loss=0.123456)
    lines = stream.getvalue().splitlines()
    steps = [line.split(",")[0] for line in lines]
    assert steps == [
        "train step 1/100 (1 %)",
        "train step 31/100 (31 %)",
        "train step 61/100 (61 %)",
        "train step 91/100 (91 %)",
        "train step 100/100 (100 %)",
    ]
    assert lines[1].endswith("loss 0.1235, 1 steps/s, 0:31 elapsed, 1:09 left")


def test_the_estimate_of_a_resumed_run_counts_only_its_own_steps(clock):
    stream = io.StringIO()
    bar = Progress(100, initial=90, stream=stream)
    clock[0] += 20
    bar.update(92)
    assert stream.getvalue().strip().endswith("0.1 steps/s, 0:20 elapsed, 1:20 left")


def test_a_terminal_gets_a_bar_with_values_and_time_left():
    stream = _Terminal()
    with Progress(10, stream=stream, label="sample", unit="video") as bar:
        bar.update(10, loss=0.5, stage="2")
        bar.message("checkpoint written")
    text = stream.getvalue()
    assert "sample: 100%" in text and "10/10" in text and "video/s" in text
    assert "checkpoint written\n" in text


def test_a_quiet_one_writes_nothing():
    for stream in (io.StringIO(), _Terminal()):
        with Progress(1, stream=stream, is_quiet=True) as bar:
            bar.update(1, loss=1.0)
            bar.message("hidden")
        assert stream.getvalue() == ""


@pytest.mark.parametrize(
    "seconds, text", [(7.4, "0:07"), (754, "12:34"), (7384, "2:03:04"), (59.6, "1:00")]
)
def test_durations_read_like_a_clock(seconds, text):
    assert duration(seconds) == text
