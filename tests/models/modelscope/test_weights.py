"""ModelScope weights: names and shapes are diffusers', and nothing is lost in or out."""

import json

import jax
import ml_dtypes
import numpy as np
import pytest
import torch
from diffusers import UNet3DConditionModel
from safetensors.numpy import load_file, save_file

from tests.models.modelscope.modelscope_reference import CONFIG, make_reference, to_params
from tpdiff_jax.models import ModelScopeConfig
from tpdiff_jax.models.modelscope.weights import (
    abstract_modelscope_params,
    load_modelscope,
    modelscope_rows,
    save_modelscope,
)
from tpdiff_jax.weights.key_table import places

FILE = "diffusion_pytorch_model.safetensors"
TIME_KERNEL = "down_blocks.0.temp_convs.0.conv2.3.weight"


@pytest.fixture(scope="module")
def tensors():
    return {name: t.detach().numpy() for name, t in make_reference().state_dict().items()}


def write(folder, tensors):
    (folder / "unet").mkdir(parents=True, exist_ok=True)
    save_file({n: np.ascontiguousarray(t) for n, t in tensors.items()}, folder / "unet" / FILE)
    return folder


def test_the_full_size_network_has_the_published_tensors():
    """1,480 tensors, 1,411.2 million values; shapes only, nothing is allocated."""
    with torch.device("meta"):
        expected = {
            name: tuple(t.shape)
            for name, t in UNet3DConditionModel(cross_attention_dim=1024).state_dict().items()
        }
    config = ModelScopeConfig()
    found = places(modelscope_rows(config), abstract_modelscope_params(config))
    assert {name: place.shape for name, place in found.items()} == expected
    assert len(expected) == 1480
    assert round(sum(np.prod(shape) for shape in expected.values()) / 1e6, 1) == 1411.2


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_tensor_survives_the_round_trip_bit_for_bit(tmp_path, tensors, dtype):
    stored = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}[dtype]
    published = {name: t.astype(stored) for name, t in tensors.items()}
    params = load_modelscope(write(tmp_path / "in", published), CONFIG)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    save_modelscope(tmp_path / "out", params, CONFIG, "diffusers", dtype)
    found = load_file(tmp_path / "out" / "unet" / FILE)
    assert set(found) == set(published)
    for name, tensor in published.items():
        assert found[name].dtype == tensor.dtype, name
        np.testing.assert_array_equal(found[name].view(np.uint8), tensor.view(np.uint8), name)


def test_diffusers_opens_what_is_exported_and_we_open_what_diffusers_writes(tmp_path, tensors):
    params = to_params({name: torch.from_numpy(t) for name, t in tensors.items()})
    save_modelscope(tmp_path / "ours", params, CONFIG)
    model = UNet3DConditionModel.from_pretrained(tmp_path / "ours", subfolder="unet")
    assert model.config.attention_head_dim == CONFIG.head_dim and model.config.sample_size == 32
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), tensors[name], name)
    model.save_pretrained(tmp_path / "theirs" / "unet")
    jax.tree.map(
        np.testing.assert_array_equal, load_modelscope(tmp_path / "theirs", CONFIG), params
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({TIME_KERNEL: None}, f"tensor '{TIME_KERNEL}' is missing"),
        (
            {"transformer_in.proj_in.weight": None, "conv_out.bias": None},
            r"is missing \(2 such in all\)",
        ),
        ({"guidance": np.zeros(1)}, "tensor 'guidance' is not part of this network"),
        (
            {"down_blocks.1.temp_attentions.0.proj_in.bias": np.zeros(16)},
            "down_blocks.1.temp_attentions.0.proj_in.bias' is not part of this network",
        ),
        (
            {TIME_KERNEL: np.zeros((8, 8, 1, 1, 1))},
            rf"'{TIME_KERNEL}' has shape \(8, 8, 1, 1, 1\), this network needs \(8, 8, 3, 1, 1\)",
        ),
        (  # a 1 x 1 convolution, as in Stable Diffusion 1.5, is no linear layer
            {"down_blocks.0.attentions.0.proj_in.weight": np.zeros((8, 8, 1, 1))},
            r"proj_in.weight' has shape \(8, 8, 1, 1\), this network needs \(8, 8\)",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(tmp_path, tensors, change, message):
    changed = {name: t for name, t in (tensors | change).items() if t is not None}
    with pytest.raises(ValueError, match=message):
        load_modelscope(write(tmp_path, changed), CONFIG)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attention_head_dim": 8}, "attention_head_dim=8, the config has head_dim=4"),
        ({"norm_num_groups": 2}, "norm_num_groups=2, the config has num_groups=4"),
        ({"norm_eps": 1e-6}, "norm_eps=1e-06; this network has 1e-05"),
        ({"act_fn": "gelu"}, "act_fn='gelu'; this network has 'silu'"),
        ({"_class_name": "UNetMotionModel"}, "this network has 'UNet3DConditionModel'"),
        (
            {"down_block_types": ["CrossAttnDownBlock3D", "CrossAttnDownBlock3D"]},
            r"this network has \('CrossAttnDownBlock3D', 'DownBlock3D'\)",
        ),
    ],
)
def test_a_config_file_that_says_otherwise_is_refused(tmp_path, tensors, fields, message):
    """What leaves no trace in the tensors' shapes among it."""
    folder = write(tmp_path, tensors)
    (folder / "unet" / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=message):
        load_modelscope(folder, CONFIG)


def test_missing_folders_and_unknown_layouts_and_types_are_refused(tmp_path):
    with pytest.raises(ValueError, match="unet holds no .safetensors file"):
        load_modelscope(tmp_path, CONFIG)
    with pytest.raises(ValueError, match="layout is 'separate'; allowed: 'diffusers'"):
        save_modelscope(tmp_path, {}, CONFIG, "separate")
    with pytest.raises(ValueError, match="dtype is 'int8'; allowed: "):
        save_modelscope(tmp_path, {}, CONFIG, "diffusers", "int8")
