"""AnimateDiff weights: names and shapes are diffusers', and nothing is lost in or out."""

import dataclasses
import json

import jax
import ml_dtypes
import numpy as np
import pytest
import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from safetensors.numpy import load_file, save_file

from tests.models.animatediff.animatediff_reference import CONFIG, make_reference, to_params
from tpdiff_jax.models import AnimateDiffConfig
from tpdiff_jax.models.animatediff.weight_rows import (
    MOTION,
    animatediff_rows,
    name_in_diffusers,
    original_names,
    position_names,
)
from tpdiff_jax.models.animatediff.weights import (
    ANIMATEDIFF_LAYOUTS,
    UNET_ONLY,
    abstract_animatediff_params,
    load_animatediff,
    save_animatediff,
)
from tpdiff_jax.weights.config_files import check_only_read_as
from tpdiff_jax.weights.key_table import flatten_params, places

FILE = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def tensors():
    return {name: t.detach().numpy() for name, t in make_reference().state_dict().items()}


@pytest.fixture(scope="module")
def params(tensors):
    return to_params({name: torch.from_numpy(t) for name, t in tensors.items()})


def write(folder, tensors):
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(t) for name, t in tensors.items()}, folder / FILE)


def write_layout(folder, tensors, layout):
    """Write a folder by the rules in words, without the code under test."""
    if layout == "combined":
        write(folder / "unet", tensors)
        return folder
    motion = {name: t for name, t in tensors.items() if ".motion_modules." in name}
    write(folder / "unet", {name: t for name, t in tensors.items() if name not in motion})
    write(folder / "motion_adapter", in_original_names(motion) if layout == "original" else motion)
    return folder


def in_original_names(motion):
    """AnimateDiff's own names, spelled out."""
    parts = {
        "norm1": "norms.0", "norm2": "norms.1", "norm3": "ff_norm", "attn1": "attention_blocks.0",
        "attn2": "attention_blocks.1",
    }  # fmt: skip
    renamed = {}
    for name, tensor in motion.items():
        head, tail = name.split(".motion_modules.")
        index, *rest = tail.split(".")
        stem = f"{head}.motion_modules.{index}.temporal_transformer"
        if rest[0] == "transformer_blocks" and rest[2] == "pos_embed":
            for i in (0, 1):
                own = f"{stem}.transformer_blocks.0.attention_blocks.{i}.pos_encoder.pe"
                renamed[own] = tensor
            continue
        renamed[".".join([stem, *(parts.get(part, part) for part in rest)])] = tensor
    return renamed


def everything(folder):
    return {
        (part.name, name): tensor
        for part in sorted(folder.iterdir())
        for name, tensor in load_file(part / FILE).items()
    }


def test_the_full_size_network_has_the_published_tensors():
    """686 and 567 tensors, 1313.3 million values; shapes only, nothing is allocated."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=768,
            attention_head_dim=8,
        )  # fmt: skip
        adapter = MotionAdapter(use_motion_mid_block=True, motion_max_seq_length=32)
        both = UNetMotionModel(cross_attention_dim=768)
    config = AnimateDiffConfig(motion_form="v2")
    shapes = abstract_animatediff_params(config)
    found = {n: p.shape for n, p in places(animatediff_rows(config), shapes).items()}
    found |= {name: (1, 32, channels) for name, channels in position_names(config).items()}
    expected = {
        name: tuple(t.shape) for model in (unet, adapter) for name, t in model.state_dict().items()
    }
    assert found == expected == {n: tuple(t.shape) for n, t in both.state_dict().items()}
    assert len([name for name in found if MOTION not in name]) == 686
    assert len([name for name in found if MOTION in name]) == 567
    assert round(sum(np.prod(shape) for shape in found.values()) / 1e6, 1) == 1313.3


@pytest.mark.parametrize(("motion_form", "count", "length"), [("v1", 540, 24), ("v3", 540, 32)])
def test_the_other_forms_have_no_motion_in_the_middle(motion_form, count, length):
    with torch.device("meta"):
        adapter = MotionAdapter(use_motion_mid_block=False, motion_max_seq_length=length)
    config = AnimateDiffConfig(motion_form=motion_form)
    names = {row.tensor for row in animatediff_rows(config)} | set(position_names(config))
    assert {name for name in names if MOTION in name} == set(adapter.state_dict())
    assert len(adapter.state_dict()) == count and config.motion.num_positions == length


@pytest.mark.parametrize("layout", ANIMATEDIFF_LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_tensor_survives_the_round_trip_bit_for_bit(tmp_path, tensors, layout, dtype):
    stored = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}[dtype]
    published = {name: t.astype(stored) for name, t in tensors.items()}
    source = write_layout(tmp_path / "in", published, layout)
    params = load_animatediff(source, CONFIG)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    save_animatediff(tmp_path / "out", params, CONFIG, layout, dtype, source)
    before, after = everything(source), everything(tmp_path / "out")
    assert set(before) == set(after)
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype, name
        np.testing.assert_array_equal(after[name].view(np.uint8), tensor.view(np.uint8), name)


@pytest.mark.parametrize("layout", ANIMATEDIFF_LAYOUTS)
def test_layouts_hold_the_same_parameters(tmp_path, tensors, params, layout):
    result = load_animatediff(write_layout(tmp_path, tensors, layout), CONFIG)
    jax.tree.map(np.testing.assert_array_equal, result, params)


def test_names_with_a_prefix_of_parallel_training_are_read(tmp_path, tensors, params):
    folder = write_layout(tmp_path, tensors, "original")
    file = folder / "motion_adapter" / FILE
    save_file({f"module.{name}": t for name, t in load_file(file).items()}, file)
    jax.tree.map(np.testing.assert_array_equal, load_animatediff(folder, CONFIG), params)


def test_names_of_either_kind_lead_back():
    for name in (*(row.tensor for row in animatediff_rows(CONFIG)), *position_names(CONFIG)):
        if MOTION in name:
            originals = original_names(name)
            assert len(originals) == (2 if name.endswith("pe") else 1)
            assert {name_in_diffusers(original) for original in originals} == {name}
        assert name_in_diffusers(name) == name


def test_diffusers_opens_what_is_exported_for_it(tmp_path, tensors, params):
    """Without a source the tables of positions are computed; diffusers computes them too."""
    save_animatediff(tmp_path, params, CONFIG)
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "unet")
    assert unet.config.sample_size == 64  # Stable Diffusion 1.5's; the network has no size
    adapter = MotionAdapter.from_pretrained(tmp_path / "motion_adapter")
    save_animatediff(tmp_path / "both", params, CONFIG, "combined")
    for model in (
        UNetMotionModel.from_unet2d(unet, adapter),
        UNetMotionModel.from_pretrained(tmp_path / "both" / "unet"),
    ):
        state = model.state_dict()
        assert set(state) == set(tensors)
        for name, tensor in state.items():
            tolerance = 5e-6 if name.endswith("pos_embed.pe") else 0.0
            np.testing.assert_allclose(tensor.numpy(), tensors[name], atol=tolerance, rtol=0.0)
        assert model.config.num_attention_heads == model.config.motion_num_attention_heads == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv_out.bias": None}, "tensor 'conv_out.bias' is missing"),
        ({"guidance": np.zeros(1)}, "tensor 'guidance' is not part of this network"),
        ({"conv_in.bias": np.zeros(7)}, r"'conv_in.bias' has shape \(7,\), this network needs"),
        (
            {"down_blocks.0.motion_modules.0.proj_in.bias": None},
            "tensor 'down_blocks.0.motion_modules.0.proj_in.bias' is missing",
        ),
        (
            {"mid_block.motion_modules.0.transformer_blocks.0.pos_embed.pe": np.zeros((1, 32, 16))},
            "tensor 'mid_block.*pe' holds other positions than the sinusoids",
        ),
        (
            {"mid_block.motion_modules.0.transformer_blocks.0.pos_embed.pe": np.zeros((1, 24, 16))},
            r"pe' has shape \(1, 24, 16\), model.motion_form='v2' needs \(1, 32, 16\)",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(tmp_path, tensors, change, message):
    changed = {name: t for name, t in (tensors | change).items() if t is not None}
    with pytest.raises(ValueError, match=message):
        load_animatediff(write_layout(tmp_path, changed, "separate"), CONFIG)


def test_modules_of_another_form_and_missing_parts_are_refused(tmp_path, tensors):
    folder = write_layout(tmp_path, tensors, "separate")
    with pytest.raises(ValueError, match=r"mid_block.motion_modules.0.* is not part of this"):
        load_animatediff(folder, dataclasses.replace(CONFIG, motion_form="v3"))
    (folder / "motion_adapter" / FILE).unlink()
    with pytest.raises(ValueError, match=r"motion_adapter holds no .safetensors file"):
        load_animatediff(folder, CONFIG)


def test_a_bare_unet_gets_fresh_motion_modules_that_change_nothing_yet(tmp_path, tensors, params):
    write(tmp_path / "unet", {name: t for name, t in tensors.items() if MOTION not in name})
    with pytest.raises(ValueError, match=r"motion_modules.* is missing"):
        load_animatediff(tmp_path, CONFIG)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=device),
        abstract_animatediff_params(CONFIG),
    )
    found = load_animatediff(tmp_path, CONFIG, shapes, jax.random.key(0))
    assert jax.tree.structure(found) == jax.tree.structure(params)
    for path, leaf in flatten_params(found).items():
        if "/motion/" not in path:
            np.testing.assert_array_equal(leaf, flatten_params(params)[path], path)
        elif path.endswith("kernel"):
            assert (np.std(leaf) == 0.0) == path.endswith("motion/project_out/kernel"), path
    save_animatediff(tmp_path / "out", found, CONFIG, source=tmp_path)
    jax.tree.map(np.testing.assert_array_equal, load_animatediff(tmp_path / "out", CONFIG), found)


def test_a_config_file_that_says_otherwise_is_refused(tmp_path, tensors):
    """The number of heads leaves no trace in the tensors' shapes."""
    folder = write_layout(tmp_path, tensors, "separate")
    path = folder / "motion_adapter" / "config.json"
    path.write_text(json.dumps({"motion_num_attention_heads": 4}))
    with pytest.raises(ValueError, match=r"motion_num_attention_heads=4, .* num_heads=2"):
        load_animatediff(folder, CONFIG)


@pytest.mark.parametrize(
    "field, value",
    [
        ("_class_name", "UNet3DConditionModel"),
        ("act_fn", "relu"),
        ("flip_sin_to_cos", False),
        ("freq_shift", 1),
        ("norm_eps", 1e-6),
        ("resnet_time_scale_shift", "scale_shift"),
        ("use_linear_projection", True),
    ],
)
def test_a_config_file_of_another_kind_of_unet_is_refused(field, value, tmp_path, tensors):
    """With the same tensors diffusers would compute something else."""
    folder = write_layout(tmp_path, tensors, "separate")
    path = folder / "unet" / "config.json"
    fields = json.loads(path.read_text()) if path.exists() else {}
    load_animatediff(folder, CONFIG)
    path.write_text(json.dumps(fields | {field: value}))
    with pytest.raises(ValueError, match=rf"unet/config.json says {field}=.* is read"):
        load_animatediff(folder, CONFIG)


@pytest.mark.parametrize("network", [UNet2DConditionModel, UNetMotionModel, MotionAdapter])
def test_what_diffusers_writes_of_these_networks_is_what_is_read(network, tmp_path):
    with torch.device("meta"):
        network().save_config(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    check_only_read_as(tmp_path / "config.json", fields, UNET_ONLY)


def test_unknown_layouts_and_types_are_refused(tmp_path):
    with pytest.raises(ValueError, match="layout is 'flux'; allowed: "):
        save_animatediff(tmp_path, {}, CONFIG, "flux")
    with pytest.raises(ValueError, match="dtype is 'int8'; allowed: "):
        save_animatediff(tmp_path, {}, CONFIG, "separate", "int8")
