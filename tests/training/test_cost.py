"""Counted FLOPs: closed forms, and the compiler's own count where nothing is a loop."""

import jax
import pytest

from tests.tiny import tiny_config
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.training.cost import AVERAGE_FLOPS, step_costs, step_flops


def counted(stage=0, **overrides):
    experiment = build_experiment(tiny_config(**overrides))
    return experiment, step_flops(experiment)[stage]


def matrices(experiment):
    """Shapes of the kernels that Muon orthogonalises: [layers, d_in, d_out]."""
    params = jax.eval_shape(experiment.network.init, jax.random.key(0))
    return [leaf.shape for leaf in jax.tree.leaves(params["blocks"]) if leaf.ndim == 3]


def num_params(experiment):
    params = jax.eval_shape(experiment.network.init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("mode", ["nearest", "hungarian"])
def test_pairing_costs_one_product_of_every_clip_with_every_noise_of_its_group(mode):
    experiment, flops = counted(alignment__mode=mode, alignment__group_size=4)
    coarse = experiment.pyramid.stages[0].num_frames * 32 * 32
    assert flops.alignment == 2.0 * 8 * 4 * coarse
    assert flops.network == experiment.programs[0].train_flops


def test_without_pairing_and_with_adamw_only_the_average_is_added():
    experiment, flops = counted(alignment__mode="none", optim__name="adamw")
    assert flops == (
        experiment.programs[0].train_flops,
        0.0,
        AVERAGE_FLOPS * num_params(experiment),
    )


def test_lifting_noise_to_a_finer_stage_counts_its_matrices():
    """Stage 1: 4 of 8 frames; every lift multiplies matrices of frames into every pixel."""
    coarse, fine = (counted(stage)[1].alignment for stage in (0, 1))
    assert fine - coarse >= 8 * 32 * 32 * 2.0 * 4 * 2


def test_muon_costs_five_iterations_on_a_matrix_or_on_its_square():
    """X X^T, its square, and their sum times X; X is [m, n] with m <= n.

    Where n > 1.5 m, two groups of iterations have one X X^T and one product with X each, 5 squares,
    3 products of their sums and 2 x 3 of X X^T with them, all of [m, m].
    """
    experiment, flops = counted(optim__name="muon", model__depth=2)
    products = 0.0
    for layers, *sides in matrices(experiment):
        m, n = sorted(sides)
        plain = 5 * 2.0 * (m * m * n + m**3 + m * m * n)
        grouped = 2.0 * (4 * m * m * n + (5 + 3 + 6) * m**3)
        products += layers * min(plain, grouped)
    assert flops.update == pytest.approx(products + AVERAGE_FLOPS * num_params(experiment))


def test_the_compiler_counts_the_same_products_in_muon():
    """XLA unrolls Muon's iterations; what it counts beside products is a few FLOPs an element."""
    experiment, flops = counted(optim__name="muon", model__hidden_size=128)
    optimizer = experiment.task.optimizer
    params = jax.eval_shape(experiment.network.init, jax.random.key(0))
    lowered = jax.jit(optimizer.update).lower(
        params, jax.eval_shape(optimizer.init, params), params
    )
    found = lowered.compile().cost_analysis()["flops"]
    products = flops.update - AVERAGE_FLOPS * num_params(experiment)
    assert products <= found <= products + 100 * num_params(experiment)
    assert 100 * num_params(experiment) < 0.2 * products


def test_a_step_costs_its_clips_with_the_frames_of_its_stage_and_all_that_is_counted():
    experiment = build_experiment(tiny_config(train__batch_per_stage="tokens"))
    costs, flops = step_costs(experiment), step_flops(experiment)
    assert [cost.clips for cost in costs] == [8 * 4, 8 * 2, 8]
    assert [cost.frames for cost in costs] == [8 * 8] * 3, "2, 4 and 8 frames a clip"
    for cost, parts in zip(costs, flops, strict=True):
        assert cost.train_flops == parts.network
        assert cost.counted_flops == pytest.approx(parts.network + parts.alignment + parts.update)
