"""Progress on the terminal: a bar with the time left, or a line now and then in a log file."""

import sys
import time
from typing import Any, TextIO

from tqdm import tqdm

_LOG_SECONDS = 30.0


class Progress:
    """Counts units of work; a tqdm bar on a terminal, sparse lines anywhere else.

    Both estimate the time left from the mean rate since the start, because a step's cost jumps
    between stages and a short window would make the estimate jump with it.
    """

    def __init__(
        self,
        total: int,
        *,
        initial: int = 0,
        label: str = "train",
        unit: str = "step",
        stream: TextIO | None = None,
        log_seconds: float = _LOG_SECONDS,
        is_quiet: bool = False,
    ) -> None:
        """Starts the clock.

        Args:
            total: units of the whole job.
            initial: units done before, by the run that this one resumes.
            label: what the work is, in front of every line.
            unit: what is counted.
            stream: where to write; None is standard error.
            log_seconds: seconds between lines when `stream` is no terminal.
            is_quiet: write nothing, as every process but the first does.
        """
        self._total, self._initial, self._done = total, initial, initial
        self._label, self._unit = label, unit
        self._stream = stream if stream is not None else sys.stderr
        self._log_seconds = log_seconds
        self._is_quiet = is_quiet
        self._start = time.monotonic()
        self._last_line = -float("inf")
        self._is_last_written = False
        self._bar: tqdm | None = None
        if not is_quiet and self._stream.isatty():
            self._bar = tqdm(
                total=total,
                initial=initial,
                desc=label,
                unit=unit,
                file=self._stream,
                dynamic_ncols=True,
                smoothing=0,
            )

    def update(self, done: int, **values: Any) -> None:
        """Says how far the work is.

        Args:
            done: units done so far, counted from the very start of the job.
            **values: what to show beside it, such as `loss=0.12`.
        """
        shown = {name: _shown(value) for name, value in values.items()}
        if self._bar is not None:
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update(done - self._done)
        self._done = done
        if self._bar is None and not self._is_quiet:
            now = time.monotonic()
            is_last = done >= self._total and not self._is_last_written
            if is_last or now - self._last_line >= self._log_seconds:
                self._last_line = now
                self._is_last_written = done >= self._total
                self._write(self._line(now - self._start, shown))

    @property
    def done(self) -> int:
        """Units done so far."""
        return self._done

    def message(self, text: str) -> None:
        """Writes one line without tearing the bar."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        elif not self._is_quiet:
            self._write(text)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _line(self, elapsed: float, shown: dict[str, str]) -> str:
        fresh = self._done - self._initial
        share = 100 * self._done / max(self._total, 1)
        parts = [f"{self._label} {self._unit} {self._done}/{self._total} ({share:.0f} %)"]
        parts += [f"{name} {value}" for name, value in shown.items()]
        if fresh > 0 and elapsed > 0:
            parts.append(f"{fresh / elapsed:.3g} {self._unit}s/s")
            parts.append(f"{duration(elapsed)} elapsed")
            parts.append(f"{duration(elapsed * (self._total - self._done) / fresh)} left")
        return ", ".join(parts)

    def _write(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


def duration(seconds: float) -> str:
    """A duration for people: 0:07, 12:34 or 2:03:04."""
    minutes, s = divmod(round(seconds), 60)
    h, m = divmod(minutes, 60)
    return f"{h}:{m:02d}:{s:02d}" if h else f"{m}:{s:02d}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else f"{float(value):.4g}"
