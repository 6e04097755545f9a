"""The account of a run's time: it adds up, the device comes first, restarts take steps back."""

import itertools
import json

import numpy as np
import pytest

from tpdiff_jax.run_log.goodput import LOOP_PARTS, PARTS, Goodput, Stretch, attribute, summarise
from tpdiff_jax.run_log.json_lines import read_metrics
from tpdiff_jax.run_log.metric_writers import open_line_writer
from tpdiff_jax.run_log.step_window import Busy


class Clock:
    """A clock that stands still until told."""

    def __init__(self, seconds=1000.0):
        self.seconds = seconds

    def __call__(self):
        return self.seconds

    def work(self, seconds):
        start, self.seconds = self.seconds, self.seconds + seconds
        return start, self.seconds


class Recorder:
    """A writer into a list."""

    def __init__(self, lines):
        self._lines = lines

    def write_scalars(self, step, scalars):
        self._lines.append({"step": step, **scalars})

    def close(self):
        pass


def make(lines, clock, **kwargs):
    return Goodput(Recorder(lines), clock=clock, now=clock, **kwargs)


def test_a_session_by_hand():
    lines, clock = [], Clock()
    goodput = make(lines, clock, started_at=993.0)
    clock.work(3.0)  # restoring, after 7 s of imports
    goodput.begin("compile", 40)
    clock.work(20.0)
    goodput.begin("other")

    def batches():
        for seconds in (2.0, 0.5):
            clock.work(seconds)
            yield seconds

    busy = []
    for _ in goodput.timed("data", batches()):
        busy.append(Busy(*clock.work(5.0), is_skipped=len(busy) == 1))
    with goodput.spend("checkpoint"):
        clock.work(1.5)
        with goodput.spend("evaluation"):
            clock.work(4.0)
    clock.work(0.25)
    goodput.close_span(42, busy)
    (line,) = lines
    seconds = {part: line.get(f"{part}_seconds", 0.0) for part in PARTS}
    assert seconds == {
        "training": 5.0,
        "skipped": 5.0,
        "start": 10.0,
        "compile": 20.0,
        "data": 2.5,
        "checkpoint": 1.5,
        "evaluation": 4.0,
        "other": 0.25,
    }
    assert (line["from_step"], line["step"], line["wall_seconds"]) == (40, 42, 48.25)


def test_what_the_loop_does_while_the_device_works_costs_nothing():
    """A batch takes 4 s, 3 of them while the device is still at the step before."""
    stretches = [Stretch("other", 0.0, 1.0), Stretch("data", 1.0, 5.0), Stretch("other", 5.0, 8.0)]
    busy = [Busy(1.0, 4.0, False), Busy(5.0, 7.5, False)]
    assert attribute(stretches, busy) == {"training": 5.5, "other": 1.5, "data": 1.0}


@pytest.mark.parametrize("seed", range(5))
def test_the_parts_always_add_up_to_the_wall_clock(seed):
    rng = np.random.default_rng(seed)
    moments = np.cumsum(rng.exponential(size=60))
    stretches = [Stretch(str(rng.choice(LOOP_PARTS)), a, b) for a, b in itertools.pairwise(moments)]
    ends = np.sort(rng.uniform(moments[0], moments[-1], 40)).reshape(-1, 2)
    busy = [Busy(a, b, bool(rng.integers(2))) for a, b in ends]
    seconds = attribute(stretches, busy)
    assert sum(seconds.values()) == pytest.approx(moments[-1] - moments[0])
    assert min(seconds.values()) >= -1e-9
    at_work = seconds["training"] + seconds.get("skipped", 0.0)
    assert at_work == pytest.approx(np.sum(ends[:, 1] - ends[:, 0]))


def test_a_restart_takes_back_the_steps_that_no_checkpoint_held():
    lines, clock = [], Clock()
    first = make(lines, clock)
    for step in (60, 100):  # a checkpoint at 60; killed after the line of step 100
        first.close_span(step, [Busy(*clock.work(40.0), is_skipped=False)])
    clock.work(500.0)  # the machine is away
    second = make(lines, clock)
    second.begin("compile", 60)
    clock.work(20.0)
    second.close_span(120, [Busy(*clock.work(60.0), is_skipped=False)])
    summary = summarise(lines)
    assert summary["sessions"] == 2
    assert summary["wall_seconds"] == 160.0
    assert summary["between_sessions_seconds"] == 500.0
    assert summary["seconds"]["redone"] == 40.0
    assert summary["seconds"]["training"] == 100.0
    assert sum(summary["seconds"].values()) == summary["wall_seconds"]
    assert sum(summary["shares"].values()) == pytest.approx(1.0)
    assert summary["goodput"] == 100.0 / 160.0


def test_steps_are_taken_back_once_however_often_a_run_restarts():
    """Killed at 100 and resumed at 75, half-way through a span; killed again, resumed at 50."""

    def line(session, first, last, ended_at):
        return {
            "session": session,
            "from_step": first,
            "step": last,
            "ended_at": ended_at,
            "wall_seconds": 10.0,
            "training_seconds": 10.0,
        }

    lines = [line("a", 50, 100, 10.0), line("b", 75, 80, 20.0), line("c", 50, 100, 30.0)]
    seconds = summarise(lines)["seconds"]
    assert (seconds["training"], seconds["redone"]) == (10.0, 20.0)


def test_leaving_writes_the_last_span_and_keeps_earlier_sessions(tmp_path):
    path = tmp_path / "goodput.jsonl"
    for session in range(2):
        clock = Clock(1000.0 * (session + 1))
        with Goodput(open_line_writer(path), clock=clock, now=clock):
            clock.work(3.0)
            with path.open("a") as file:
                file.write('{"step": 1, "torn')  # a line cut short by a kill
    summary = summarise(read_metrics(path))
    assert (summary["sessions"], summary["wall_seconds"]) == (2, 6.0)


def test_other_processes_write_nothing_and_an_unwritable_file_stops_nothing(tmp_path):
    for writer in (
        open_line_writer(tmp_path / "a.jsonl", process_index=1),
        open_line_writer(tmp_path),  # a folder
    ):
        writer.write_scalars(1, {"x": 1.0})
        writer.close()
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="part is 'lunch'; allowed: 'start', 'compile'"):
        make([], Clock()).begin("lunch")


def test_no_time_has_no_share():
    assert summarise([])["goodput"] is None
    assert json.dumps(summarise([]))
