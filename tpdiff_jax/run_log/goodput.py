"""Where a run's wall-clock time went, over all its sessions.

The loop says what it is doing, the window of steps says when the device was at work on one:

    training   the device worked on a step that was kept       skipped   on one that was not
    otherwise  the moment belongs to what the loop was doing

so the parts add up to the wall-clock time by construction. Each span of time, from one log line or
checkpoint to the next, is a line appended to `goodput.jsonl`; a killed session loses at most its
last one. Checkpoints end spans, hence a restart tells exactly whose steps were done again.
"""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from tpdiff_jax.checks import check_choice
from tpdiff_jax.files.json_schema import COUNT, NUMBER, TEXT, Schema, check_json
from tpdiff_jax.run_log.step_window import Busy

GOODPUT_FILE = "goodput.jsonl"
LOOP_PARTS = ("start", "compile", "data", "checkpoint", "evaluation", "other")
PARTS = ("training", "skipped", *LOOP_PARTS)
"""`start` is everything from the start of the process to the first compilation, restoring too."""
REDONE = "redone"
"""Training whose steps a later session did again, because no checkpoint held them."""

_SUFFIX = "_seconds"
_LINE: dict[str, Schema] = {
    **{"session": TEXT, "step": COUNT, "from_step": COUNT},
    **{"ended_at": NUMBER, f"wall{_SUFFIX}": NUMBER},
}
T = TypeVar("T")


class Writer(Protocol):
    """Takes the lines."""

    def write_scalars(self, step: int, scalars: Mapping[str, Any], /) -> None: ...

    def close(self) -> None: ...


class Stretch(NamedTuple):
    """What the loop did between two moments."""

    part: str
    start: float
    end: float


class Goodput:
    """The clock of one session."""

    def __init__(
        self,
        writer: Writer,
        *,
        started_at: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Start in the part `start`.

        Args:
            writer: takes completed steps and the fields of a line; closed at the end.
            started_at: when the session began, seconds since 1970; None is now.
            clock: counts seconds from anywhere.
            now: seconds since 1970.
        """
        self._writer, self._clock, self._now = writer, clock, now
        moment = now()
        begun = moment if started_at is None else min(started_at, moment)
        self._session = f"{begun:.3f}"
        self._part, self._since = "start", clock() - (moment - begun)
        self._span_start = self._since
        self._stretches: list[Stretch] = []
        self._step = 0

    def begin(self, part: str, step: int | None = None) -> str:
        """Say what the loop does from now on, and at which step it stands; return the part before.

        Raises:
            ValueError: for a part that there is not.
        """
        check_choice("part", part, LOOP_PARTS)
        moment, before = self._clock(), self._part
        self._stretches.append(Stretch(before, self._since, moment))
        self._part, self._since = part, moment
        self._step = self._step if step is None else step
        return before

    @contextlib.contextmanager
    def spend(self, part: str) -> Iterator[None]:
        """Count the time inside for `part`."""
        before = self.begin(part)
        try:
            yield
        finally:
            self.begin(before)

    def timed(self, part: str, items: Iterable[T]) -> Iterator[T]:
        """Yield the items; the time to get each counts for `part`."""
        iterator = iter(items)
        while True:
            with self.spend(part):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def close_span(self, step: int, busy: Sequence[Busy]) -> None:
        """Write what the time since the last span went into.

        Args:
            step: completed steps.
            busy: when the device worked on steps since the last span; none may be in flight.
        """
        self.begin(self._part)
        seconds = attribute(self._stretches, busy)
        line = {"session": self._session, "from_step": self._step, "ended_at": self._now()}
        line |= {"wall" + _SUFFIX: self._since - self._span_start}
        self._writer.write_scalars(step, line | {part + _SUFFIX: s for part, s in seconds.items()})
        self._stretches, self._span_start, self._step = [], self._since, step

    def __enter__(self) -> "Goodput":
        return self

    def __exit__(self, *_: object) -> None:
        self.close_span(self._step, [])
        self._writer.close()


def attribute(stretches: Sequence[Stretch], busy: Sequence[Busy]) -> dict[str, float]:
    """Return the seconds of each part; they add up to those of the stretches.

    Args:
        stretches: what the loop did, in order, without gaps.
        busy: when the device worked, in order, inside the stretches, without overlaps.
    """
    seconds: defaultdict[str, float] = defaultdict(float)
    for work in busy:
        seconds["skipped" if work.is_skipped else "training"] += work.end - work.start
    first = 0
    for part, start, end in stretches:
        while first < len(busy) and busy[first].end <= start:
            first += 1
        idle, i = end - start, first
        while i < len(busy) and busy[i].start < end:
            idle -= min(end, busy[i].end) - max(start, busy[i].start)
            i += 1
        seconds[part] += idle
    return dict(seconds)


def summarise(lines: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a run's time went into.

    Args:
        lines: of `goodput.jsonl`, in order.

    Returns:
        sessions: how many; wall_seconds: of all of them; seconds and shares of each part, `redone`
        among them; goodput: the share of training that was kept; between_sessions_seconds: from
        each session's last line to the start of the next, when the machine was away or a killed
        session lost its last span.
    """
    spans: list[dict[str, Any]] = []
    redone = between = 0.0
    sessions: dict[str, float] = {}  # session -> when its last line ended
    for line in filter(_is_whole, lines):
        if line["session"] not in sessions:
            redone += _take_back(spans, line["from_step"])
            if sessions:
                started_at = line["ended_at"] - line["wall" + _SUFFIX]
                between += max(0.0, started_at - list(sessions.values())[-1])
        sessions[line["session"]] = line["ended_at"]
        spans.append(dict(line))
    seconds = {p: sum(span.get(p + _SUFFIX, 0.0) for span in spans) for p in PARTS}
    seconds[REDONE] = redone
    wall = sum(span["wall" + _SUFFIX] for span in spans)
    return {
        "sessions": len(sessions),
        "wall_seconds": wall,
        "goodput": seconds["training"] / wall if wall else None,
        "seconds": seconds,
        "shares": {part: s / wall if wall else None for part, s in seconds.items()},
        "between_sessions_seconds": between,
    }


def _is_whole(line: Mapping[str, Any]) -> bool:
    """Whether a line is one of ours; what was damaged or written by hand is left out."""
    try:
        check_json(dict(line), _LINE, GOODPUT_FILE)
    except ValueError:
        return False
    return all(NUMBER.is_valid(v) for name, v in line.items() if name.endswith(_SUFFIX))


def _take_back(spans: list[dict[str, Any]], restored_step: int) -> float:
    """Take the training beyond a step out of the spans; return its seconds."""
    taken = 0.0
    for span in spans:
        first, last = span["from_step"], span["step"]
        if last > restored_step and last > first:
            share = (last - max(first, restored_step)) / (last - first)
            lost = share * span.get("training" + _SUFFIX, 0.0)
            taken += lost
            span["training" + _SUFFIX] = span.get("training" + _SUFFIX, 0.0) - lost
            span["step"] = max(first, restored_step)
    return taken
