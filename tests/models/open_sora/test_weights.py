"""Open-Sora's weights: names and shapes are its own, and nothing is lost on the way in or out."""

import dataclasses
import json

import jax
import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tests.models.open_sora.open_sora_reference import CONFIGS, OpenSoraReference, make_reference
from tpdiff_jax.models import OpenSoraConfig
from tpdiff_jax.models.open_sora.weights import (
    abstract_open_sora_params,
    load_open_sora,
    open_sora_rows,
    save_open_sora,
)
from tpdiff_jax.models.published import PUBLISHED
from tpdiff_jax.weights.key_table import places

FILE = "diffusion_pytorch_model.safetensors"
FULL = {
    "stdit": OpenSoraConfig(),
    "stdit3": OpenSoraConfig(form="stdit3", num_text_tokens=300, qk_norm=True),
}
# One name and shape of every kind in the published files, by hand; {} is a layer, 0 to 27.
PUBLISHED_TENSORS = {
    "stdit": {
        "x_embedder.proj.weight": (1152, 4, 1, 2, 2),
        "t_embedder.mlp.0.weight": (1152, 256),
        "t_block.1.weight": (6912, 1152),
        "y_embedder.y_embedding": (120, 4096),
        "y_embedder.y_proj.fc1.weight": (1152, 4096),
        "y_embedder.y_proj.fc2.bias": (1152,),
        "blocks.{}.scale_shift_table": (6, 1152),
        "blocks.{}.attn.qkv.weight": (3456, 1152),
        "blocks.{}.attn_temp.proj.bias": (1152,),
        "blocks.{}.cross_attn.q_linear.weight": (1152, 1152),
        "blocks.{}.cross_attn.kv_linear.weight": (2304, 1152),
        "blocks.{}.mlp.fc1.weight": (4608, 1152),
        "final_layer.scale_shift_table": (2, 1152),
        "final_layer.linear.weight": (32, 1152),
    },
    "stdit3": {
        "y_embedder.y_embedding": (300, 4096),
        "fps_embedder.mlp.2.weight": (1152, 1152),
        "rope.freqs": (36,),
        "spatial_blocks.{}.attn.q_norm.weight": (72,),
        "spatial_blocks.{}.cross_attn.kv_linear.bias": (2304,),
        "temporal_blocks.{}.attn.qkv.weight": (3456, 1152),
        "temporal_blocks.{}.attn.k_norm.weight": (72,),
        "temporal_blocks.{}.mlp.fc2.weight": (1152, 4608),
        "temporal_blocks.{}.scale_shift_table": (6, 1152),
    },
}
NUM_TENSORS = {"stdit": 28 * 19 + 16, "stdit3": 56 * 17 + 16 + 4 + 1}
MILLIONS = {"stdit": 760.112288, "stdit3": 1208.872772}


@pytest.fixture(scope="module", params=CONFIGS)
def case(request):
    model = make_reference(request.param)
    tensors = {name: t.detach().numpy() for name, t in model.state_dict().items()}
    return CONFIGS[request.param], tensors


def write(folder, tensors):
    folder.mkdir(exist_ok=True)
    save_file(dict(tensors), folder / FILE)
    return folder


@pytest.mark.parametrize("form", FULL)
def test_the_full_size_networks_have_the_published_tensors(form):
    """Shapes only, nothing is allocated."""
    config = FULL[form]
    shapes = abstract_open_sora_params(config)
    found = {n: place.shape for n, place in places(open_sora_rows(config), shapes).items()}
    with torch.device("meta"):
        model = OpenSoraReference(config)
    assert found == {name: tuple(t.shape) for name, t in model.state_dict().items()}
    assert len(found) == NUM_TENSORS[form]
    for name, shape in PUBLISHED_TENSORS[form].items():
        assert found[name.format(0)] == found[name.format(27)] == shape, name
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert count / 1e6 == pytest.approx(MILLIONS[form], rel=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_tensor_survives_the_round_trip_bit_for_bit(tmp_path, case, dtype):
    config, tensors = case
    stored = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    published = {name: t.astype(stored) for name, t in tensors.items()}
    params = load_open_sora(write(tmp_path / "in", published), config)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    PUBLISHED["open_sora"].save(tmp_path / "out", params, config, "native", dtype, None)
    exported = load_file(tmp_path / "out" / FILE)
    assert set(exported) == set(published)
    for name, tensor in published.items():
        assert exported[name].dtype == tensor.dtype, name
        np.testing.assert_array_equal(exported[name].view(np.uint8), tensor.view(np.uint8), name)
    again = load_open_sora(tmp_path / "out", config)  # its config.json agrees
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_the_tables_of_positions_of_1_0_are_passed_over_and_only_there(tmp_path):
    """Of whatever size: they are those of the clips that the weights were trained on."""
    tables = {
        "pos_embed": np.ones((1, 256, 48), np.float32),
        "pos_embed_temporal": np.ones((1, 16, 48), np.float32),
    }
    for form, config in CONFIGS.items():
        tensors = {n: t.detach().numpy() for n, t in make_reference(form).state_dict().items()}
        without = load_open_sora(write(tmp_path / f"{form}_without", tensors), config)
        folder = write(tmp_path / form, tensors | tables)
        if form == "stdit":
            jax.tree.map(np.testing.assert_array_equal, load_open_sora(folder, config), without)
        else:
            with pytest.raises(ValueError, match="'pos_embed' is not part of this network"):
                load_open_sora(folder, config)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", "tensor '{}' is missing"),
        ("extra", "tensor 'y_embedder.extra' is not part of this network"),
        ("misshaped", r"tensor '{}' has shape \(7,\), this network needs \(32,\)"),
    ],
)
@pytest.mark.parametrize("name", ["final_layer.linear.bias", "y_embedder.y_embedding"])
def test_a_file_that_does_not_fit_is_refused_by_name(tmp_path, case, fault, message, name):
    config, tensors = case
    changed = dict(tensors)
    if fault == "missing":
        del changed[name]
    elif fault == "extra":
        changed["y_embedder.extra"] = np.zeros(1, np.float32)
    else:
        changed["final_layer.linear.bias"] = np.zeros(7, np.float32)
        name = "final_layer.linear.bias"
    with pytest.raises(ValueError, match=message.format(name)):
        load_open_sora(write(tmp_path / "in", changed), config)


@pytest.mark.parametrize(
    ("form", "missing"), [("stdit", "blocks.0.scale_shift_table"), ("stdit3", "rope.freqs")]
)
def test_weights_of_the_other_form_are_refused(tmp_path, form, missing):
    (other,) = set(CONFIGS) - {form}
    tensors = {n: t.detach().numpy() for n, t in make_reference(other).state_dict().items()}
    with pytest.raises(ValueError, match=f"tensor '{missing}' is missing"):
        load_open_sora(write(tmp_path / "in", tensors), CONFIGS[form])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"num_heads": 16}, "num_heads=16, the config has num_heads=4"),
        ({"patch_size": [2, 2, 2]}, r"patch_size=\(2, 2, 2\), the config has patch_sides"),
        ({"model_max_length": 120}, "model_max_length=120, the config has num_text_tokens=5"),
        ({"pred_sigma": False}, "pred_sigma=False, the config has has_variance=True"),
        ({"mlp_ratio": 4.0}, "mlp_ratio=4.0, the config has mlp_ratio=1.5"),
        ({"model_type": "STDiT2"}, "model_type='STDiT2'; this network has 'STDiT"),
    ],
)
def test_a_config_file_that_says_otherwise_is_refused(tmp_path, case, entry, message):
    config, tensors = case
    folder = write(tmp_path / "in", tensors)
    (folder / "config.json").write_text(json.dumps(entry))
    with pytest.raises(ValueError, match=message):
        load_open_sora(folder, config)


def test_the_config_file_is_that_of_the_published_folder(tmp_path):
    shapes = abstract_open_sora_params(CONFIGS["stdit3"])
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    save_open_sora(tmp_path, zeros, CONFIGS["stdit3"])
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "caption_channels": 12, "depth": 2, "hidden_size": 48, "in_channels": 4, "mlp_ratio": 1.5,
        "model_max_length": 5, "model_type": "STDiT3", "num_heads": 4, "patch_size": [1, 2, 2],
        "pred_sigma": True, "qk_norm": True, "input_sq_size": 64,
    }  # fmt: skip


def test_the_range_of_positions_of_1_2_is_that_of_its_config_file(tmp_path):
    """It leaves no trace in the tensors; Open-Sora's own code reads it there, and takes 512."""
    config = CONFIGS["stdit3"]
    shapes = abstract_open_sora_params(config)
    save_open_sora(tmp_path, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes), config)
    load_open_sora(tmp_path, config)
    with pytest.raises(
        ValueError, match="input_sq_size=64, the config has base_pixels=512, 8 times model.base_s"
    ):
        load_open_sora(tmp_path, dataclasses.replace(config, base_side=64))


def test_a_network_without_a_variance_has_half_the_output(tmp_path):
    config = dataclasses.replace(CONFIGS["stdit"], has_variance=False)
    found = places(open_sora_rows(config), abstract_open_sora_params(config))
    assert found["final_layer.linear.weight"].shape == (16, 48)


def test_unknown_layouts_and_types_are_refused(tmp_path):
    with pytest.raises(ValueError, match="layout is 'diffusers'; allowed: 'native'"):
        save_open_sora(tmp_path, {}, CONFIGS["stdit"], "diffusers")
    with pytest.raises(ValueError, match="dtype is 'int8'; allowed: "):
        save_open_sora(tmp_path, {}, CONFIGS["stdit"], "native", "int8")
