"""The key table has every published tensor, in diffusers' names and in Wan's own."""

import json
import re

import jax
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
from safetensors.numpy import load_file, save_file

from tests.models.wan_vae.wan_vae_reference import CONFIG, make_reference, to_params
from tpdiff_jax.models.wan_vae.config import WanVAEConfig
from tpdiff_jax.models.wan_vae.network import WanVAE
from tpdiff_jax.models.wan_vae.weights import (
    load_wan_vae,
    native_name,
    read_wan_vae_config,
    wan_vae_rows,
)
from tpdiff_jax.weights.key_table import export_tensor, flatten_params, places

FILE = "diffusion_pytorch_model.safetensors"
SMALL = WanVAEConfig(latent_channels=16, level_channels=(4, 8, 16, 16))  # depth as published


def table_shapes(config):
    shapes = jax.eval_shape(WanVAE(config).init, jax.random.key(0))
    return {name: place.shape for name, place in places(wan_vae_rows(config), shapes).items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("vae")
    make_reference().save_pretrained(path)
    return path


def test_the_full_size_autoencoder_has_the_published_tensors():
    with torch.device("meta"):
        model = AutoencoderKLWan()
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert table_shapes(WanVAEConfig()) == expected
    assert len(expected) == 194
    assert round(sum(np.prod(shape) for shape in expected.values()) / 1e6, 1) == 126.9


def test_a_published_folder_is_read_to_the_same_parameters(folder):
    config = read_wan_vae_config(folder)
    assert config == CONFIG
    assert read_wan_vae_config(folder / "nothing") == WanVAEConfig()
    expected = to_params(dict(make_reference().named_parameters()))
    jax.tree.map(np.testing.assert_array_equal, load_wan_vae(folder, config), expected)


def test_every_tensor_survives_the_round_trip_bit_for_bit(folder):
    shapes = jax.eval_shape(WanVAE(CONFIG).init, jax.random.key(0))
    found, leaves = (
        places(wan_vae_rows(CONFIG), shapes),
        flatten_params(load_wan_vae(folder, CONFIG)),
    )
    for name, tensor in load_file(folder / FILE).items():
        exported = export_tensor(leaves, found[name], np.dtype(np.float32))
        np.testing.assert_array_equal(exported, tensor, name)


def test_native_names_are_those_that_diffusers_converts_from():
    names = table_shapes(SMALL)
    native = {native_name(name, SMALL): name for name in names}
    assert len(native) == len(names) == 194
    shortcut = {"decoder.upsamples.4.shortcut.weight", "decoder.upsamples.4.shortcut.bias"}
    assert shortcut <= native.keys()
    assert convert_wan_vae_to_diffusers(native) == {name: name for name in names}


def test_a_native_file_is_read_to_the_same_parameters(tmp_path):
    """As the published file, it stands without a config of its own."""
    tensors = {name: p.detach().numpy() for name, p in make_reference(SMALL).named_parameters()}
    native = {native_name(name, SMALL): tensor for name, tensor in tensors.items()}
    save_file(native, tmp_path / "Wan2.1_VAE.safetensors")
    expected = to_params(dict(make_reference(SMALL).named_parameters()), SMALL)
    jax.tree.map(np.testing.assert_array_equal, load_wan_vae(tmp_path, SMALL), expected)


FAULTS = {
    "quant_conv.bias": "conv1.bias",
    "encoder.down_blocks.3.time_conv.weight": "encoder.downsamples.3.time_conv.weight",
    "decoder.up_blocks.1.upsamplers.0.resample.1.weight": "decoder.upsamples.5.resample.1.weight",
    "decoder.mid_block.attentions.0.norm.gamma": "decoder.middle.1.norm.gamma",
}


@pytest.mark.parametrize("form", ["diffusers", "native"])
@pytest.mark.parametrize("name", FAULTS)
def test_a_tensor_that_is_missing_left_over_or_misshaped_is_named(folder, tmp_path, name, form):
    tensors = load_file(folder / FILE)
    if form == "native":
        tensors = {native_name(key, CONFIG): tensor for key, tensor in tensors.items()}
        assert native_name(name, CONFIG) == FAULTS[name]
        name = FAULTS[name]
    path = tmp_path / "vae.safetensors"
    for change, message in (
        ({name: None}, rf"tensor '{re.escape(name)}' is missing \(1 such"),
        ({f"{name}.more": tensors[name]}, rf"'{re.escape(name)}.more' is not part of this network"),
        ({name: tensors[name][..., None]}, rf"tensor '{re.escape(name)}' has shape .* needs"),
    ):
        changed = {key: t for key, t in (tensors | change).items() if t is not None}
        save_file(changed, path)
        with pytest.raises(ValueError, match=message):
            load_wan_vae(tmp_path, CONFIG)


def test_the_pickled_file_is_not_read(tmp_path):
    (tmp_path / "Wan2.1_VAE.pth").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"holds no .safetensors file \(other formats are not"):
        load_wan_vae(tmp_path, CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"is_residual": True}, "says is_residual=True; False is read"),
        ({"patch_size": 2}, "says patch_size=2; None is read"),
        ({"attn_scales": [0.5]}, r"says attn_scales=\[0.5\]; \[\] is read"),
        ({"_class_name": "AutoencoderKL"}, "says _class_name='AutoencoderKL'; 'AutoencoderKLWan'"),
        ({"decoder_base_dim": 16}, "says decoder_base_dim=16, not 8"),
        ({"dim_mult": [2, 2, 2, 2]}, r"says dim_mult=\[2, 2, 2, 2\]; a list that starts with 1"),
        ({"out_channels": 4}, "says out_channels=4, elsewhere 3"),
        ({"latents_std": [1.0]}, "vae.latents_std must have vae.latent_channels=4 entries, got 1"),
    ],
)
def test_other_autoencoders_are_refused(folder, tmp_path, change, message):
    fields = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(fields | change))
    with pytest.raises(ValueError, match=message):
        read_wan_vae_config(tmp_path)


def test_the_defaults_are_the_published_ones(tmp_path):
    with torch.device("meta"):
        fields = dict(AutoencoderKLWan().config)
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert read_wan_vae_config(tmp_path) == WanVAEConfig()
