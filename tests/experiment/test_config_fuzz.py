"""Any override of any field either trains a step or is refused by a ValueError that names a field.

Overrides are texts, as on the command line, so that what the flag parser lets through is what is
tried: numbers out of range, NaN, tuples of anything, choices that there are not.

`FUZZ_EXAMPLES=2000 python -m pytest -m slow tests/experiment/test_config_fuzz.py` tries more of
them, for as long as you like.
"""

import os
import re
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.grid.overrides import read_config
from tests.tiny import REPO, SIZES, tiny_config
from tpdiff_jax.data.step_schedule import stage_of_step
from tpdiff_jax.experiment.build import Experiment, build_experiment
from tpdiff_jax.run_folder import run_config
from tpdiff_jax.training.batches import iterate_batches
from tpdiff_jax.training.initial_state import abstract_train_state, make_state, run_keys
from tpdiff_jax.training.step_programs import CompiledStep, trace_gradient, trace_update

FIELDS = {name: value for name, value in run_config.flat_fields(tiny_config())}
# Values that fit some field; sizes stay small, because a large one is valid and only slow.
NUMBERS = ["-1", "0", "1", "2", "3", "4", "7", "8", "16", "0.5", "1.0", "1.5", "-0.25", "1e-3"]
ODD = ["nan", "inf", "-inf", "1e999", "1e-320", "", " ", "none", "None", "True", "é", "{}", "[1]"]
TUPLES = ["()", "(1,)", "(2, 1)", "(4, 2, 1)", "(8, 4, 2, 1)", "(1, 2)", "(0,)", "(-1, 1)", "1"]
TUPLES += ["(1.0, 2.0, 1.0)", "('a',)", "(None,)", "((1,),)", "(nan,)", "(True, 1)", "(1e9, 1)"]
LARGE = ["2147483648", "9223372036854775808", "-9223372036854775809"]
FREE_OF_SIZE = ("seed", "_every_steps", "num_steps", "warmup_steps", "keep_checkpoints")
WORDS = sorted(
    {
        word
        for text in (REPO / "configs/flow.py").read_text().splitlines()
        for word in re.findall(r"[a-z_]+", text.partition("#")[2])
    }
)

# Groups that a training step depends on.
TRACED_GROUPS = ("data", "model", "path", "pyramid", "alignment", "optim", "guard")
# The comment behind a field in the config lists its choices.
CHOICES = {
    f"{group}.{field}": re.findall(r"[a-z_]+", comment)
    for group, field, comment in re.findall(
        r"config\.(\w+)\.(\w+) = .*?#(.*)", (REPO / "configs/flow.py").read_text()
    )
}


def texts(field: str) -> st.SearchStrategy[str]:
    """Return texts to try for one field."""
    tried = NUMBERS + ODD + TUPLES
    if any(field.endswith(ending) for ending in FREE_OF_SIZE) and field != "sample.num_steps":
        tried = tried + LARGE
    if isinstance(FIELDS[field], str):
        tried = tried + WORDS * 2
    return st.sampled_from(tried) | st.just(str(FIELDS[field]))


def plausible(field: str) -> st.SearchStrategy[str]:
    """Return texts of the field's own type: about half of them are accepted."""
    default = FIELDS[field]
    if isinstance(default, bool):
        return st.sampled_from(["True", "False"])
    if isinstance(default, str):
        return st.sampled_from([word for word in WORDS if word in CHOICES.get(field, WORDS)])
    if isinstance(default, tuple):
        return st.sampled_from(TUPLES)
    is_text_of = int if isinstance(default, int) else float
    return st.sampled_from([text for text in NUMBERS if is_text_of is float or text.isdigit()])


OVERRIDES = st.lists(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=3, unique=True).flatmap(
    lambda fields: st.fixed_dictionaries({field: texts(field) for field in fields})
)

TRACED = [name for name in sorted(FIELDS) if name.split(".")[0] in TRACED_GROUPS]
PLAUSIBLE = st.sampled_from(TRACED).flatmap(
    lambda field: st.fixed_dictionaries({field: plausible(field)})
)


def build(overrides: dict[str, str]) -> Experiment:
    """Build the tiny config with overrides."""
    sizes = {name: str(value) for name, value in SIZES.items()}
    return build_experiment(read_config(str(REPO / "configs/flow.py"), sizes | overrides))


BATCH_OF_STEP: dict[str, Any] = {}
"""Text of both programs of a step that has run -> shapes and types of its batch."""


def take_a_step(experiment: Experiment) -> None:
    """Train the first step, as the loop does; equal programs, such as of two seeds, run once."""
    seed = experiment.train.seed
    key_init, key = run_keys(seed)
    stage = stage_of_step(seed, 0, experiment.train.stage_probs)
    program, state = experiment.programs[stage], abstract_train_state(experiment)
    gradient = trace_gradient(program, state, key).lower()
    update = trace_update(experiment, state).lower()
    text = gradient.as_text() + update.as_text()
    batch = next(iterate_batches(experiment, 0))
    abstract_batch = jax.tree.map(lambda a: (a.shape, a.dtype), batch)
    if BATCH_OF_STEP.setdefault(text, abstract_batch) is not abstract_batch:
        assert BATCH_OF_STEP[text] == abstract_batch
        return
    step = CompiledStep(program, gradient.compile(), update.compile())
    state, metrics = step(make_state(experiment, key_init), batch, key)
    assert int(state.step) == 1 and np.shape(metrics["loss"]) == ()


def trace_a_step(experiment: Experiment) -> None:
    """Trace the last stage's step without compiling: shapes and types must fit."""
    key = jax.eval_shape(lambda: run_keys(experiment.train.seed)[1])
    last, state = experiment.pyramid.num_stages - 1, abstract_train_state(experiment)
    trace_gradient(experiment.programs[last], state, key)
    trace_update(experiment, state)


def names_a_field(error: ValueError) -> bool:
    """Whether a refusal names a field in full; the flag parser writes `config.group.field`."""
    return any(field in str(error) for field in FIELDS)


def try_overrides(overrides: dict[str, str], use: Any) -> None:
    """Build and use, or be refused with a name; anything else is a fault."""
    try:
        experiment = build(overrides)
    except ValueError as error:
        assert names_a_field(error), f"{overrides}: {error}"
        return
    use(experiment)


NUM_TRAINED = int(os.environ.get("FUZZ_EXAMPLES", "150"))
QUIET = {"derandomize": True, "database": None, "deadline": None}
SLOW_INPUT = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=300, suppress_health_check=SLOW_INPUT, **QUIET)
@given(OVERRIDES)
def test_an_override_builds_or_is_refused_by_name(overrides: dict[str, str]) -> None:
    try_overrides(overrides, lambda experiment: None)


@settings(max_examples=30, suppress_health_check=SLOW_INPUT, **QUIET)
@given(PLAUSIBLE)
def test_an_override_that_is_accepted_can_be_traced(overrides: dict[str, str]) -> None:
    try_overrides(overrides, trace_a_step)


@pytest.mark.slow
@settings(max_examples=NUM_TRAINED, suppress_health_check=SLOW_INPUT, **QUIET)
@given(PLAUSIBLE | OVERRIDES)
def test_an_override_that_is_accepted_trains_a_step(overrides: dict[str, str]) -> None:
    try_overrides(overrides, take_a_step)
