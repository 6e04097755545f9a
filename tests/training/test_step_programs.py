"""Steps are compiled side by side only where the cores, and so the memory, are there."""

import functools
import threading
import time
from typing import Any

import chex
import jax
import pytest

from tests.tiny import tiny_config
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.train_step import train_step
from tpdiff_jax.training import step_programs
from tpdiff_jax.training.batches import iterate_batches
from tpdiff_jax.training.initial_state import abstract_train_state, make_state, run_keys
from tpdiff_jax.training.step_programs import (
    compile_step,
    compile_steps,
    trace_gradient,
    trace_update,
)


class Compiler:
    """Stands for a traced step: counts how many are compiled at once, and what is given back."""

    def __init__(self) -> None:
        self.begun, self.now, self.most, self.released = 0, 0, 0, 0
        self._lock = threading.Lock()

    def trace(self, *_: Any) -> "Compiler":
        return self

    def lower(self) -> "Compiler":
        return self

    def compile(self) -> str:
        with self._lock:
            self.begun += 1
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


def test_a_program_that_does_not_compile_ends_the_start_before_others_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of many shapes of clips each takes minutes, and the first error says enough."""

    class Refusing(Compiler):
        def compile(self) -> str:
            super().compile()
            raise jax.errors.JaxRuntimeError("exceeds available HBM")

    compiler = Refusing()
    for name in ("trace_gradient", "trace_update"):
        monkeypatch.setattr(step_programs, name, compiler.trace)
    monkeypatch.setattr(step_programs, "usable_cores", lambda: 2)
    experiment = build_experiment(tiny_config(pyramid__frame_strides=(4, 2, 1)))
    state = abstract_train_state(experiment)
    with pytest.raises(jax.errors.JaxRuntimeError, match="exceeds available HBM"):
        compile_steps(experiment, state, jax.random.key(0))
    assert compiler.begun <= 2, "of four; a second one may have begun meanwhile"


def test_what_belongs_to_the_optimizer_alone_is_in_the_update_alone() -> None:
    """So that a sweep of rates finds the gradients compiled."""

    def texts(**fields: Any) -> tuple[str, str]:
        experiment = build_experiment(tiny_config(pyramid__frame_strides=(1,), **fields))
        state, key = abstract_train_state(experiment), jax.random.key(0)
        gradient = trace_gradient(experiment.programs[0], state, key)
        return gradient.lower().as_text(), trace_update(experiment, state).lower().as_text()

    gradient, update = texts()
    for change in (
        {"optim__learning_rate": 1e-5},
        {"optim__ema_decay": 0.9},
        {"optim__weight_decay": 0.3},
        {"guard__spike_factor": 7.0},
        {"train__num_steps": 999},
    ):
        changed = texts(**change)
        assert changed[0] == gradient and changed[1] != update, change
    changed = texts(train__cond_dropout=0.3)
    assert changed[0] != gradient and changed[1] == update


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_both_programs_together_are_the_training_step(stage: int) -> None:
    experiment = build_experiment(tiny_config(pyramid__frame_strides=(4, 2, 1)))
    key_init, key = run_keys(3)
    program, batch = experiment.programs[stage], next(iterate_batches(experiment, 0))
    step = compile_step(program, abstract_train_state(experiment), key)
    whole = jax.jit(functools.partial(train_step, program.task, stage))
    states = [make_state(experiment, key_init) for _ in range(2)]
    for _ in range(2):
        ours, theirs = step(states[0], batch, key), whole(states[1], batch, key)
        states = [ours[0], theirs[0]]
        assert ours[1].keys() == theirs[1].keys()
        chex.assert_trees_all_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert int(states[0].step) == int(states[0].num_updates) == 2
