"""Flux weights: names and shapes are diffusers', and nothing is lost on the way in or out."""

import dataclasses
import json

import jax
import ml_dtypes
import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel
from einops import rearrange
from safetensors.numpy import load_file, save_file

from tests.models.flux.flux_reference import CHANNELS, CONFIG, PATCH, make_reference
from tpdiff_jax.models import FluxConfig
from tpdiff_jax.models.flux.weights import (
    FLUX_LAYOUTS,
    abstract_flux_params,
    flux_rows,
    load_flux,
    save_flux,
)
from tpdiff_jax.weights.key_table import places

FILE = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def tensors():
    return {name: t.detach().numpy() for name, t in make_reference().state_dict().items()}


def write(folder, tensors):
    folder.mkdir(exist_ok=True)
    save_file(dict(tensors), folder / FILE)
    return folder


@pytest.mark.parametrize("layout", FLUX_LAYOUTS)
def test_the_full_size_network_has_the_published_tensors(layout):
    """496 tensors, 1972.06 million values; shapes only, nothing is allocated."""
    with torch.device("meta"):
        model = FluxTransformer2DModel(
            attention_head_dim=64, num_attention_heads=30, num_layers=8, num_single_layers=16,
            in_channels=64, joint_attention_dim=4096, pooled_projection_dim=768, patch_size=1,
            axes_dims_rope=(16, 24, 24),
        )  # fmt: skip
    expected = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    shapes = abstract_flux_params(FluxConfig())
    found = places(flux_rows(FluxConfig(), layout), shapes)
    assert {name: place.shape for name, place in found.items()} == expected
    assert len(found) == 496
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert count == sum(t.numel() for t in model.state_dict().values())
    assert round(count / 1e6, 2) == 1972.06


@pytest.mark.parametrize("layout", FLUX_LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_tensor_survives_the_round_trip_bit_for_bit(tmp_path, tensors, layout, dtype):
    stored = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}[dtype]
    published = {name: t.astype(stored) for name, t in tensors.items()}
    params = load_flux(write(tmp_path / "in", published), CONFIG, layout)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    save_flux(tmp_path / "out", params, CONFIG, layout, dtype)
    exported = load_file(tmp_path / "out" / FILE)
    assert set(exported) == set(published)
    for name, tensor in published.items():
        assert exported[name].dtype == tensor.dtype, name
        np.testing.assert_array_equal(exported[name].view(np.uint8), tensor.view(np.uint8), name)


def test_layouts_differ_by_the_order_of_channels_in_a_patch(tmp_path, tensors):
    sizes = {"c": CHANNELS, "p": PATCH, "q": PATCH}
    channels_first = dict(tensors)
    channels_first["x_embedder.weight"] = rearrange(
        tensors["x_embedder.weight"], "d (p q c) -> d (c p q)", **sizes
    )
    for name in ("proj_out.weight", "proj_out.bias"):
        moved = rearrange(tensors[name], "(p q c) ... -> (c p q) ...", **sizes)
        channels_first[name] = np.ascontiguousarray(moved)
    expected = load_flux(write(tmp_path / "ours", tensors), CONFIG, "pyramid_flow")
    result = load_flux(write(tmp_path / "theirs", channels_first), CONFIG, "diffusers")
    jax.tree.map(np.testing.assert_array_equal, result, expected)


def test_diffusers_opens_what_is_exported_for_it(tmp_path, tensors):
    params = load_flux(write(tmp_path / "in", tensors), CONFIG, "diffusers")
    save_flux(tmp_path / "out", params, CONFIG, "diffusers")
    model = FluxTransformer2DModel.from_pretrained(tmp_path / "out")
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), tensors[name], name)


def test_shards_of_diffusers_are_read(tmp_path, tensors):
    make_reference().save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    params = load_flux(tmp_path, CONFIG, "diffusers")
    expected = load_flux(write(tmp_path / "whole", tensors), CONFIG, "diffusers")
    jax.tree.map(np.testing.assert_array_equal, params, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"proj_out.bias": None}, "tensor 'proj_out.bias' is missing"),
        ({"guidance": np.zeros(1, np.float32)}, "tensor 'guidance' is not part of this network"),
        (
            {"x_embedder.bias": np.zeros(7, np.float32)},
            r"tensor 'x_embedder.bias' has shape \(7,\), this network needs \(32,\)",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(tmp_path, tensors, change, message):
    changed = {name: t for name, t in (tensors | change).items() if t is not None}
    with pytest.raises(ValueError, match=message):
        load_flux(write(tmp_path / "in", changed), CONFIG, "pyramid_flow")


def test_a_config_file_that_says_otherwise_is_refused(tmp_path, tensors):
    """The split of a head among the axes leaves no trace in the tensors' shapes."""
    folder = write(tmp_path / "in", tensors)
    (folder / "config.json").write_text(json.dumps({"axes_dims_rope": [8, 4, 4]}))
    with pytest.raises(ValueError, match=r"axes_dims_rope=\(8, 4, 4\), the config has rope_dims="):
        load_flux(folder, CONFIG, "pyramid_flow")
    (folder / "config.json").write_text(json.dumps({"in_channels": 64}))
    with pytest.raises(
        ValueError, match=r"in_channels=64, the config has patch_dim=\d+, the square"
    ):
        load_flux(folder, CONFIG, "pyramid_flow")


def test_the_config_file_says_whether_attention_is_causal(tmp_path, tensors):
    config = dataclasses.replace(CONFIG, is_causal=True)
    params = load_flux(write(tmp_path / "in", tensors), config, "pyramid_flow")
    save_flux(tmp_path / "out", params, config, "pyramid_flow")
    fields = json.loads((tmp_path / "out" / "config.json").read_text())
    assert fields["use_temporal_causal"] is True
    assert fields["axes_dims_rope"] == [4, 6, 6]


def test_unknown_layouts_and_types_are_refused(tmp_path):
    with pytest.raises(ValueError, match="layout is 'flux'; allowed: "):
        flux_rows(CONFIG, "flux")
    with pytest.raises(ValueError, match="dtype is 'int8'; allowed: "):
        save_flux(tmp_path, {}, CONFIG, "diffusers", "int8")
