"""Steps are compiled side by side only where the cores, and so the memory, are there."""

import threading
import time
from typing import Any

import jax
import pytest

from tests.tiny import tiny_config
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.training import step_programs
from tpdiff_jax.training.initial_state import abstract_train_state
from tpdiff_jax.training.step_programs import compile_steps


class Compiler:
    """Stands for a traced step: counts how many are compiled at once, and what is given back."""

    def __init__(self) -> None:
        self.now, self.most, self.released = 0, 0, 0
        self._lock = threading.Lock()

    def trace(self, *_: Any) -> "Compiler":
        return self

    def lower(self) -> "Compiler":
        return self

    def compile(self) -> str:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.1)
        with self._lock:
            self.now -= 1
        return "a program"

    def release(self) -> bool:
        self.released += 1
        return True


@pytest.mark.parametrize(("cores", "most"), [(1, 1), (2, 1), (3, 1), (4, 2), (64, 3), (None, 3)])
def test_one_program_at_a_time_for_every_two_cores(
    cores: int | None, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = Compiler()
    for name in ("trace_gradient", "trace_update"):
        monkeypatch.setattr(step_programs, name, compiler.trace)
    monkeypatch.setattr(step_programs, "release_free_memory", compiler.release)
    monkeypatch.setattr(step_programs, "usable_cores", lambda: cores)
    experiment = build_experiment(tiny_config(pyramid__frame_strides=(4, 2, 1)))
    steps = compile_steps(experiment, abstract_train_state(experiment), jax.random.key(0))
    assert len(steps) == 3
    assert compiler.most == most
    assert compiler.released == 4, "memory is given back after each stage, and the update"
