"""Wan's weights: names and shapes are diffusers', and nothing is lost on the way in or out."""

import json

import jax
import ml_dtypes
import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.numpy import load_file, save_file

from tests.models.wan.wan_reference import CONFIG, make_reference
from tpdiff_jax.models import WanConfig
from tpdiff_jax.models.published import PUBLISHED
from tpdiff_jax.models.wan.weights import (
    WAN_LAYOUTS,
    abstract_wan_params,
    load_wan,
    save_wan,
    wan_rows,
)
from tpdiff_jax.weights.key_table import places

FILE = "diffusion_pytorch_model.safetensors"
NATIVE = {  # from Wan's own code, written by hand; longest first, norm2 and norm3 change places
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "attn1.to_out.0": "self_attn.o",
    "attn2.to_out.0": "cross_attn.o",
    "attn1.to_": "self_attn.",
    "attn2.to_": "cross_attn.",
    "attn1.": "self_attn.",
    "attn2.": "cross_attn.",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    "norm2": "norm3",
    "proj_out": "head.head",
}


def native_name(name):
    if name == "scale_shift_table":
        return "head.modulation"
    for old, new in NATIVE.items():
        name = name.replace(old, new)
    return name.replace("scale_shift_table", "modulation")


@pytest.fixture(scope="module")
def tensors():
    return {name: t.detach().numpy() for name, t in make_reference().state_dict().items()}


@pytest.fixture(scope="module")
def in_layout(tensors):
    native = {native_name(name): tensor for name, tensor in tensors.items()}
    return {"diffusers": tensors, "native": native}


def write(folder, tensors):
    folder.mkdir(exist_ok=True)
    save_file(dict(tensors), folder / FILE)
    return folder


@pytest.mark.parametrize(
    ("size", "num_tensors", "millions"),
    [
        ({"num_heads": 12, "depth": 30, "feed_forward_dim": 8960}, 825, 1418.9968),
        ({"num_heads": 40, "depth": 40, "feed_forward_dim": 13824}, 1095, 14288.491584),
    ],
    ids=["1.3B", "14B"],
)
def test_the_full_size_networks_have_the_published_tensors(size, num_tensors, millions):
    """Shapes only, nothing is allocated."""
    with torch.device("meta"):
        model = WanTransformer3DModel(
            num_attention_heads=size["num_heads"], attention_head_dim=128,
            num_layers=size["depth"], ffn_dim=size["feed_forward_dim"], text_dim=4096,
        )  # fmt: skip
    expected = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    config = WanConfig(**size)
    shapes = abstract_wan_params(config)
    found = {layout: places(wan_rows(config, layout), shapes) for layout in WAN_LAYOUTS}
    assert {name: place.shape for name, place in found["diffusers"].items()} == expected
    assert {name: place.shape for name, place in found["native"].items()} == {
        native_name(name): shape for name, shape in expected.items()
    }
    assert len(expected) == num_tensors
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert count == sum(t.numel() for t in model.state_dict().values())
    assert count / 1e6 == pytest.approx(millions, rel=1e-9)


def test_the_defaults_are_the_smaller_network_s():
    config = WanConfig()
    assert config == WanConfig(num_heads=12, depth=30, feed_forward_dim=8960)
    assert (config.hidden_size, config.rope_dims) == (1536, (44, 42, 42))


@pytest.mark.parametrize("layout", WAN_LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_tensor_survives_the_round_trip_bit_for_bit(tmp_path, in_layout, layout, dtype):
    """Without a word about the layout on the way in."""
    stored = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    published = {name: t.astype(stored) for name, t in in_layout[layout].items()}
    params = load_wan(write(tmp_path / "in", published), CONFIG)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    PUBLISHED["wan"].save(tmp_path / "out", params, CONFIG, layout, dtype, None)
    exported = load_file(tmp_path / "out" / FILE)
    assert set(exported) == set(published)
    for name, tensor in published.items():
        assert exported[name].dtype == tensor.dtype, name
        np.testing.assert_array_equal(exported[name].view(np.uint8), tensor.view(np.uint8), name)


def test_layouts_hold_the_same_parameters(tmp_path, in_layout):
    one, other = (
        load_wan(write(tmp_path / name, part), CONFIG, name) for name, part in in_layout.items()
    )
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_diffusers_opens_what_is_exported_for_it(tmp_path, tensors):
    params = load_wan(write(tmp_path / "in", tensors), CONFIG)
    save_wan(tmp_path / "out", params, CONFIG)
    model = WanTransformer3DModel.from_pretrained(tmp_path / "out")
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), tensors[name], name)


def test_shards_and_the_config_file_of_diffusers_are_read(tmp_path, tensors):
    make_reference().save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    params = load_wan(tmp_path, CONFIG)
    expected = load_wan(write(tmp_path / "whole", tensors), CONFIG)
    jax.tree.map(np.testing.assert_array_equal, params, expected)


@pytest.mark.parametrize("layout", WAN_LAYOUTS)
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", "tensor '{}' is missing"),
        ("extra", "tensor 'img_emb.proj.0.weight' is not part of this network"),
        ("misshaped", r"tensor '{}' has shape \(7,\), this network needs \(16,\)"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(tmp_path, in_layout, layout, fault, message):
    changed = dict(in_layout[layout])
    name = {"diffusers": "proj_out.bias", "native": "head.head.bias"}[layout]
    if fault == "missing":
        del changed[name]
    elif fault == "extra":
        changed["img_emb.proj.0.weight"] = np.zeros(1, np.float32)
    else:
        changed[name] = np.zeros(7, np.float32)
    with pytest.raises(ValueError, match=message.format(name)):
        load_wan(write(tmp_path / "in", changed), CONFIG)


@pytest.mark.parametrize(
    ("layout", "entry", "message"),
    [
        ("diffusers", {"num_attention_heads": 4}, "num_attention_heads=4, the config has num_head"),
        ("diffusers", {"patch_size": [2, 2, 2]}, r"patch_size=\(2, 2, 2\), the config has patch_s"),
        ("diffusers", {"qk_norm": None}, "qk_norm=None; this network has 'rms_norm_across_heads'"),
        ("diffusers", {"_class_name": "WanVACE"}, "_class_name='WanVACE'; this network has"),
        ("native", {"num_heads": 4}, "num_heads=4, the config has num_heads=2"),
        ("native", {"text_len": 512}, "text_len=512, the config has num_text_tokens=5"),
        ("native", {"model_type": "i2v"}, "model_type='i2v'; this network has 't2v'"),
        ("native", {"eps": 1e-5}, "eps=1e-05; this network has 1e-06"),
    ],
)
def test_a_config_file_that_says_otherwise_is_refused(tmp_path, in_layout, layout, entry, message):
    """Heads leave no trace in the tensors' shapes."""
    folder = write(tmp_path / "in", in_layout[layout])
    (folder / "config.json").write_text(json.dumps(entry))
    with pytest.raises(ValueError, match=message):
        load_wan(folder, CONFIG)


def test_config_files_are_those_of_the_published_folders(tmp_path, tensors):
    params = load_wan(write(tmp_path / "in", tensors), CONFIG)
    save_wan(tmp_path / "native", params, CONFIG, "native")
    assert json.loads((tmp_path / "native" / "config.json").read_text()) == {
        "_class_name": "WanModel", "dim": 48, "eps": 1e-6, "ffn_dim": 64, "freq_dim": 32,
        "in_dim": 4, "model_type": "t2v", "num_heads": 2, "num_layers": 2, "out_dim": 4,
        "text_len": 5,
    }  # fmt: skip
    jax.tree.map(np.testing.assert_array_equal, load_wan(tmp_path / "native", CONFIG), params)


def test_unknown_layouts_and_types_are_refused(tmp_path):
    with pytest.raises(ValueError, match="layout is 'comfy'; allowed: 'diffusers', 'native'"):
        wan_rows(CONFIG, "comfy")
    with pytest.raises(ValueError, match="dtype is 'int8'; allowed: "):
        save_wan(tmp_path, {}, CONFIG, "native", "int8")
