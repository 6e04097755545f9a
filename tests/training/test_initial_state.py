"""A run starts from published weights, bit for bit, on its devices."""

import pathlib

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache
from safetensors.numpy import load_file, save_file

from configs import miniflux_vid
from tests.tiny import SIZES, set_field, tiny_config
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.models import Flux
from tpdiff_jax.models.flux.weights import save_flux
from tpdiff_jax.training.initial_state import make_state

SMALL = {
    **{k: v for k, v in SIZES.items() if k.split(".")[0] not in ("data", "model")},
    "model.num_heads": 1,
    "model.num_double_blocks": 1,
    "model.num_single_blocks": 1,
    "model.rope_dims": (4, 2, 2),
    "model.text_dim": 8,
    "model.num_text_tokens": 3,
    "model.pooled_dim": 8,
    "mesh.fsdp": 1,
}
FRAMES = (8, 4, 4, 2)


def small_config(**fields):
    config = miniflux_vid.get_config()
    for name, value in {**SMALL, **fields}.items():
        set_field(config, name, value)
    return config


@pytest.mark.parametrize("layout", ["pyramid_flow", "diffusers"])
def test_parameters_and_average_are_the_published_ones(tmp_path: pathlib.Path, layout: str) -> None:
    network = build_experiment(small_config(), frame_shape=FRAMES).network
    assert isinstance(network, Flux)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape).astype(leaf.dtype),
        jax.eval_shape(network.init, jax.random.key(0)),
    )
    save_flux(tmp_path, params, network.config, layout)
    config = small_config(**{"model.weights": str(tmp_path)})
    state = make_state(build_experiment(config, frame_shape=FRAMES), jax.random.key(1))
    for started in (state.params, state.ema_params):
        jax.tree.map(np.testing.assert_array_equal, started, params)
    assert int(state.step) == 0


def test_weights_that_do_not_fit_are_one_line_that_names_the_tensor(tmp_path: pathlib.Path) -> None:
    network = build_experiment(small_config(), frame_shape=FRAMES).network
    save_flux(tmp_path, network.init(jax.random.key(0)), network.config, "pyramid_flow")
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    del tensors["proj_out.bias"]
    save_file(tensors, path)
    config = small_config(**{"model.weights": str(tmp_path)})
    with pytest.raises(ValueError, match=r"model\.weights: .*tensor 'proj_out\.bias' is missing"):
        make_state(build_experiment(config, frame_shape=FRAMES), jax.random.key(1))
    (tmp_path / "config.json").write_text('{"_class_name": "UNet"}')
    with pytest.raises(ValueError, match=r"_class_name='UNet'"):
        make_state(build_experiment(config, frame_shape=FRAMES), jax.random.key(1))


def test_runs_of_one_network_share_the_program_that_draws_its_parameters(
    tmp_path: pathlib.Path, programs_stay: None
) -> None:
    """Drawing takes as long to compile as a step: a vanilla twin reads it from disk."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    reset_cache()
    network = {"model__hidden_size": 24, "model__mlp_ratio": 3.0}  # of no other test
    states = [
        make_state(build_experiment(tiny_config(**network, **fields)), jax.random.key(0))
        for fields in ({}, {"pyramid__frame_strides": (1,)})
    ]
    jax.tree.map(np.testing.assert_array_equal, states[0].params, states[1].params)
    programs = [path.name.partition("-")[0] for path in tmp_path.glob("*-cache")]
    assert programs.count("jit_init") == 1 and programs.count("jit_state_of_params") == 2


def test_a_seed_gives_the_low_rank_changes_of_a_network_in_the_order_it_is_built() -> None:
    experiment, key = build_experiment(tiny_config(adaptation__rank=2)), jax.random.key(3)
    adaptation, init = experiment.task.adaptation, experiment.network.init
    expected, _ = jax.jit(lambda key: adaptation.split(init(key), jax.random.fold_in(key, 1)))(key)
    jax.tree.map(np.testing.assert_array_equal, make_state(experiment, key).params, expected)
