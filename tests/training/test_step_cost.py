"""What a step takes on a device counts what waits beside each of its two programs."""

import jax
import pytest

from tests.tiny import tiny_config
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.planning.program_cost import DoesNotFit
from tpdiff_jax.training import step_cost
from tpdiff_jax.training.initial_state import abstract_train_state
from tpdiff_jax.training.step_cost import gradient_cost, gradient_peak


@pytest.mark.parametrize("says", [1000.0, None])
@pytest.mark.parametrize("cost", [gradient_cost, gradient_peak])
def test_a_gradient_that_is_refused_needs_what_waits_beside_it_too(cost, says, monkeypatch) -> None:
    """The compiler knows of parameters, gradient and batch; the rest of the state is there too."""

    def refuse(*_: object) -> None:
        raise DoesNotFit("too much", says)

    monkeypatch.setattr(step_cost, "program_cost", refuse)
    monkeypatch.setattr(step_cost, "compile_or_refuse", refuse)
    program = build_experiment(tiny_config(optim__name="adamw")).programs[0]
    with pytest.raises(DoesNotFit, match="too much") as refusal:
        cost(program)
    leaves = jax.tree.leaves(abstract_train_state(program.experiment).params)
    params = sum(4.0 * leaf.size for leaf in leaves)
    if says is None:
        assert refusal.value.needed is None
    else:  # average and two moments; the guard's memory and counters are small
        assert 0 <= refusal.value.needed - says - 3 * params < 10_000
