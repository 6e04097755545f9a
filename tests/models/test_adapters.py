"""Adapters from and for peft, diffusers and ComfyUI: the same output of the network, both ways."""

import json
import pathlib
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
import torch
from diffusers import AnimateDiffPipeline, FluxPipeline, WanPipeline
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch_file

from tests.models.adapter_cases import (
    ANIMATEDIFF,
    FLUX,
    FLUX_NATIVE,
    MODELSCOPE,
    WAN,
    AdapterCase,
    draw_adapter,
    relative,
    strong_low_rank,
)
from tpdiff_jax.models.adapter_export import save_adapter
from tpdiff_jax.models.adapter_names import adapter_names
from tpdiff_jax.models.adapter_start import fill_low_rank
from tpdiff_jax.models.adapters import (
    merge_adapter,
    named_pairs,
    pairs_of_low_rank,
)
from tpdiff_jax.optim.adaptation import Adaptation
from tpdiff_jax.weights.adapter_files import ADAPTER_LAYOUTS, LowRankPair, read_adapter

ALPHA, RANK = 3.0, 2  # alpha / rank is neither 1 nor a power of two
TOLERANCE = 1e-5
CASES = [
    pytest.param(FLUX, id="flux"),
    pytest.param(WAN, id="wan"),
    pytest.param(ANIMATEDIFF, id="animatediff", marks=pytest.mark.slow),
]
# diffusers' class of ModelScope's network takes no adapters; peft's layers go into any network.
WITH_PEFT = [*CASES, pytest.param(MODELSCOPE, id="modelscope", marks=pytest.mark.slow)]
PIPELINES = {"flux": FluxPipeline, "wan": WanPipeline, "animatediff": AnimateDiffPipeline}
DIFFUSERS_NAME = "pytorch_lora_weights.safetensors"


def exported(
    case: AdapterCase, layout: str, folder: pathlib.Path, trained: str = ""
) -> tuple[pathlib.Path, Any]:
    """Write a strong adapter of ours, of all matrices; return the folder and our output with it."""
    params = case.params
    adaptation = Adaptation(trained=trained, rank=RANK, alpha=ALPHA)
    low, network = strong_low_rank(params, adaptation), case.adapted(params)
    pairs = pairs_of_low_rank(low, network, layout, adaptation.scale)
    save_adapter(folder, pairs, network.names, layout)
    return folder, case.output(adaptation.merge(low, params))


def our_output(case: AdapterCase, path: pathlib.Path, scale: float = 1.0) -> np.ndarray:
    """Our network's, with the adapter of a file merged."""
    params, file = case.params, read_adapter(path)
    network = case.adapted(params)
    pairs = named_pairs(file, network)
    return case.output(merge_adapter(params, pairs, network, file.layout, scale))


def merged(case: AdapterCase, model: torch.nn.Module) -> torch.nn.Module:
    """Merge what peft's layers hold, where the network cannot run with them.

    diffusers' motion modules call their projections by a keyword that peft's layers do not take.
    """
    if case.name == "animatediff":
        model.fuse_lora()
        model.unload_lora()
    return model


def load_with_peft(case: AdapterCase, folder: pathlib.Path) -> torch.nn.Module:
    model = PeftModel.from_pretrained(case.make(), folder)
    return model.merge_and_unload() if case.name == "animatediff" else model.base_model.model


def load_with_diffusers(case: AdapterCase, path: Any, **where: Any) -> torch.nn.Module:
    """As a pipeline's `load_lora_weights` does, without its other networks."""
    flags = {"return_lora_metadata": True} | ({"return_alphas": True} if case is FLUX else {})
    tensors, *alphas, metadata = PIPELINES[case.name].lora_state_dict(path, **where, **flags)
    model = case.make()
    model.load_lora_adapter(
        tensors,
        prefix="unet" if case.name == "animatediff" else "transformer",
        network_alphas=alphas[0] if alphas else None,
        metadata=metadata,
    )
    return merged(case, model)


# ---------------------------------------------------------------------------- from us to others


@pytest.mark.parametrize("case", WITH_PEFT)
def test_peft_computes_the_same_with_our_adapter_of_every_matrix(
    case: AdapterCase, tmp_path: pathlib.Path
) -> None:
    folder, expected = exported(case, "peft", tmp_path)
    assert relative(case.reference_output(case.make()), expected) > 0.1, "the adapter matters"
    assert relative(case.reference_output(load_with_peft(case, folder)), expected) < TOLERANCE


@pytest.mark.parametrize("case", CASES)
def test_diffusers_computes_the_same_with_our_adapter_by_folder_and_by_path(
    case: AdapterCase, tmp_path: pathlib.Path
) -> None:
    folder, expected = exported(case, "diffusers", tmp_path)
    by_folder = load_with_diffusers(case, folder, weight_name=DIFFUSERS_NAME)
    assert list(PIPELINES[case.name].lora_state_dict(folder)), "found without its name too"
    assert relative(case.reference_output(by_folder), expected) < TOLERANCE
    by_path = load_with_diffusers(case, str(folder / DIFFUSERS_NAME))
    assert relative(case.reference_output(by_path), expected) < TOLERANCE


@pytest.mark.parametrize(
    "case, layout, trained",
    [
        pytest.param(FLUX, "comfyui", "", id="flux"),
        pytest.param(
            *(ANIMATEDIFF, "comfyui", ".*/(spatial|residual)/.*"),
            id="animatediff's U-Net",
            marks=pytest.mark.slow,
        ),
        pytest.param(WAN, "comfyui", "(?!stem/patch).*", id="wan"),
        pytest.param(WAN, "native", "(?!stem/patch).*", id="wan by its own names"),
        pytest.param(WAN, "comfyui", ".*/cross_attention/(q|out)/kernel", id="a part of wan"),
    ],
)
def test_diffusers_computes_the_same_with_our_adapter_of_foreign_names(
    case: AdapterCase, layout: str, trained: str, tmp_path: pathlib.Path
) -> None:
    folder, expected = exported(case, layout, tmp_path, trained)
    model = load_with_diffusers(case, str(folder / "adapter.safetensors"))
    assert relative(case.reference_output(model), expected) < TOLERANCE


def test_the_native_layout_of_flux_has_pyramid_flows_patches(tmp_path: pathlib.Path) -> None:
    folder, expected = exported(FLUX_NATIVE, "native", tmp_path)
    model = FLUX_NATIVE.make()
    with torch.no_grad():
        add_by_names(model, load_file(folder / "adapter.safetensors"), "diffusion_model.{}", {})
    assert relative(FLUX_NATIVE.reference_output(model), expected) < TOLERANCE


def test_motion_modules_in_comfyui_are_motion_loras(tmp_path: pathlib.Path) -> None:
    """As ComfyUI-AnimateDiff-Evolved reads them: up times down, by AnimateDiff's own names."""
    folder, expected = exported(ANIMATEDIFF, "comfyui", tmp_path, ".*/motion/.*")
    tensors = load_file(folder / "adapter.safetensors")
    model, num_changed = ANIMATEDIFF.make(), 0
    with torch.no_grad():
        for name, down in tensors.items():
            if ".down." in name:
                key = name.replace("processor.", "").replace("_lora", "").replace("down.", "")
                key = key.replace("to_out.weight", "to_out.0.weight")
                key = key.replace("temporal_transformer.", "")
                key = key.replace("attention_blocks.0", "attn1").replace(
                    "attention_blocks.1", "attn2"
                )
                up = tensors[name.replace(".down.", ".up.")]
                model.get_parameter(key).add_(torch.from_numpy(up @ down))
                num_changed += 1
    assert 2 * num_changed == len(tensors)
    assert relative(ANIMATEDIFF.reference_output(model), expected) < TOLERANCE


def add_by_names(
    model: torch.nn.Module, tensors: dict[str, np.ndarray], stem: str, renamed: dict[str, str]
) -> None:
    """Add every B A to the weight that the names say, with no library in between."""
    used = 0
    for name, _ in list(model.named_parameters()):
        module = name.removesuffix(".weight")
        key = stem.format(renamed.get(module, module))
        if f"{key}.lora_A.weight" in tensors:
            a, b = (tensors[f"{key}.lora_{x}.weight"] for x in "AB")
            model.get_parameter(name).add_(torch.from_numpy(b @ a))
            used += 2
    assert used == len(tensors)


# ---------------------------------------------------------------------------- from others to us

TARGETS = {
    "flux": r".*\.(to_q|to_k|add_v_proj|to_out\.0|proj_mlp|proj_out)|x_embedder|norm_out\.linear",
    "wan": r".*\.(to_q|to_v|to_out\.0|net\.0\.proj)|patch_embedding|proj_out",
    "animatediff": r".*\.(to_q|to_v|to_out\.0|conv1|conv_shortcut|proj)|conv_in",
    "modelscope": r".*\.(to_q|to_out\.0|resnets\.0\.conv2|proj_in|conv1\.2|conv3\.3)|conv_in",
}
PATTERNS = {  # of layers for which rank and alpha are their own
    "flux": r"transformer_blocks\.1\.attn\.to_q",
    "wan": r"blocks\.1\.attn1\.to_q",
    "animatediff": r"down_blocks\.0\.resnets\.0\.conv1",
    "modelscope": r"mid_block\.temp_convs\.0\.conv3\.3",
}


def peft_config(case: AdapterCase, **fields: Any) -> LoraConfig:
    own = PATTERNS[case.name]
    patterns = {"rank_pattern": {own: 3}, "alpha_pattern": {own: 1.5}}
    return LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=TARGETS[case.name], **patterns, **fields
    )


@pytest.mark.parametrize("fields", [{}, {"use_rslora": True}], ids=["", "rslora"])
@pytest.mark.parametrize("case", WITH_PEFT)
def test_we_compute_the_same_with_an_adapter_of_pefts(
    case: AdapterCase, fields: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    model = draw_adapter(get_peft_model(case.make(), peft_config(case, **fields)))
    model.save_pretrained(tmp_path)
    expected = case.reference_output(model.base_model.model)
    assert relative(case.output(case.params), expected) > 0.1, "the adapter matters"
    assert relative(our_output(case, tmp_path), expected) < TOLERANCE


@pytest.mark.parametrize("case", CASES)
def test_we_compute_the_same_with_an_adapter_of_diffusers(
    case: AdapterCase, tmp_path: pathlib.Path
) -> None:
    model = case.make()
    model.add_adapter(peft_config(case))
    draw_adapter(model)
    expected = case.reference_output(model)
    model.save_lora_adapter(tmp_path / "network")
    assert relative(our_output(case, tmp_path / "network"), expected) < TOLERANCE
    component = "unet" if case.name == "animatediff" else "transformer"
    PIPELINES[case.name].save_lora_weights(
        tmp_path / "pipeline",
        **{f"{component}_lora_layers": lora_tensors(model)},
        **{f"{component}_lora_adapter_metadata": model.peft_config["default"].to_dict()},
    )
    assert relative(our_output(case, tmp_path / "pipeline"), expected) < TOLERANCE
    by_path = tmp_path / "pipeline" / DIFFUSERS_NAME
    assert relative(our_output(case, by_path), expected) < TOLERANCE


def lora_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {
        name.replace(".default", ""): parameter.detach()
        for name, parameter in model.named_parameters()
        if ".lora_" in name
    }


KOHYA = {  # Flux's authors have one matrix for queries, keys and values, and for the MLP's input
    "lora_unet_double_blocks_0_img_attn_qkv": [
        *(f"transformer_blocks.0.attn.to_{x}" for x in "qkv")
    ],
    "lora_unet_double_blocks_1_txt_mlp_0": ["transformer_blocks.1.ff_context.net.0.proj"],
    "lora_unet_single_blocks_1_linear1": [
        *(f"single_transformer_blocks.1.attn.to_{x}" for x in "qkv"),
        "single_transformer_blocks.1.proj_mlp",
    ],
    "lora_transformer_single_transformer_blocks_0_proj_out": [
        "single_transformer_blocks.0.proj_out"
    ],
}
KOHYA_OF = {
    "flux": KOHYA,
    "wan": {
        "lora_unet_blocks_1_self_attn_o": ["blocks.1.attn1.to_out.0"],
        "diffusion_model.blocks.0.cross_attn.k": ["blocks.0.attn2.to_k"],
        "diffusion_model.head.head": ["proj_out"],
        "transformer.blocks.0.ffn.net.2": ["blocks.0.ffn.net.2"],
    },
    "animatediff": {
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k": [
            "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
        ],
        "lora_unet_mid_block_resnets_0_conv1": ["mid_block.resnets.0.conv1"],
        "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0"
        ".attention_blocks.1.processor.to_out": [
            "down_blocks.0.motion_modules.0.transformer_blocks.0.attn2.to_out.0"
        ],
    },
}


@pytest.mark.parametrize("case", CASES)
def test_we_compute_the_same_with_down_up_and_alpha(
    case: AdapterCase, tmp_path: pathlib.Path
) -> None:
    """Every B A by hand: alpha of one tensor differs from the next, one has none."""
    rng, model, tensors = np.random.default_rng(0), case.make(), {}
    for i, (stem, modules) in enumerate(KOHYA_OF[case.name].items()):
        weights = [model.get_parameter(f"{module}.weight") for module in modules]
        rows, inputs = sum(w.shape[0] for w in weights), weights[0].shape[1:]
        down = rng.standard_normal((3, *inputs)).astype(np.float32) / np.prod(inputs) ** 0.5
        up = 0.3 * rng.standard_normal((rows, 3, *(1,) * (len(inputs) - 1))).astype(np.float32)
        ending = "_lora.{}.weight" if ".processor." in stem else ".lora_{}.weight"
        tensors |= {stem + ending.format("down"): down, stem + ending.format("up"): up}
        scale = 1.0
        if i > 0 and ".processor." not in stem:
            tensors[f"{stem}.alpha"] = np.asarray(1.0 + i, np.float32)
            scale = (1.0 + i) / 3
        change = scale * (up.reshape(rows, 3) @ down.reshape(3, -1)).reshape(rows, *inputs)
        with torch.no_grad():
            start = 0
            for weight in weights:
                weight.add_(torch.from_numpy(change[start : start + len(weight)]))
                start += len(weight)
    save_file(tensors, tmp_path / "kohya.safetensors")
    expected = case.reference_output(model)
    assert relative(case.output(case.params), expected) > 0.05, "the adapter matters"
    assert relative(our_output(case, tmp_path / "kohya.safetensors"), expected) < TOLERANCE


# ---------------------------------------------------------------------------- from us to us


@pytest.mark.parametrize("layout", ADAPTER_LAYOUTS)
@pytest.mark.parametrize("case", CASES)
def test_our_own_files_come_back_bit_for_bit_or_as_the_same_product(
    case: AdapterCase, layout: str, tmp_path: pathlib.Path
) -> None:
    params = case.params
    adaptation = Adaptation(rank=RANK, alpha=ALPHA)
    low, network = strong_low_rank(params, adaptation), case.adapted(params)
    pairs = pairs_of_low_rank(low, network, layout, adaptation.scale)
    save_adapter(tmp_path, pairs, network.names, layout)
    file = read_adapter(tmp_path)
    assert file.layout == layout
    fresh = adaptation.split(params, jax.random.key(1))[0]
    filled, missing = fill_low_rank(
        fresh, named_pairs(file, network), network, layout, adaptation.scale
    )
    assert missing == []
    for (path, found), expected in zip(
        jax.tree.leaves_with_path(filled), jax.tree.leaves(low), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=3e-7, err_msg=str(path))
        if layout == "peft" or path[-1].key == "lora_a":
            np.testing.assert_array_equal(found, expected, str(path))


@pytest.mark.parametrize("case", CASES)
def test_another_rank_and_own_matrices_of_q_k_and_v_start_at_the_same_function(
    case: AdapterCase, tmp_path: pathlib.Path
) -> None:
    """Peft's q, k and v have an A each; here they share one, of the sum of their ranks."""
    model = draw_adapter(get_peft_model(case.make(), peft_config(case)))
    model.save_pretrained(tmp_path)
    params, file = case.params, read_adapter(tmp_path)
    network = case.adapted(params)
    pairs = named_pairs(file, network)
    changed = {network.modules(file.layout)[name].param for name in pairs}
    adaptation = Adaptation(trained="|".join(changed), rank=9, alpha=5.0)
    fresh = adaptation.split(params, jax.random.key(1))[0]
    filled, _ = fill_low_rank(fresh, pairs, network, file.layout, adaptation.scale)
    expected = case.reference_output(model.base_model.model)
    for join in (adaptation.merge, adaptation.attach):
        assert relative(case.output(join(filled, params)), expected) < TOLERANCE
    needed = 5 if case.name == "flux" else 3
    small = Adaptation(trained="|".join(changed), rank=needed - 1)
    with pytest.raises(
        ValueError, match=f"adaptation.rank is {needed - 1}; allowed: at least {needed}"
    ):
        low = small.split(params, jax.random.key(1))[0]
        fill_low_rank(low, pairs, network, file.layout, small.scale)


def test_strength_scales_the_change_and_none_leaves_the_network(tmp_path: pathlib.Path) -> None:
    folder, _ = exported(WAN, "diffusers", tmp_path)
    np.testing.assert_array_equal(our_output(WAN, folder, scale=0.0), WAN.output(WAN.params))
    model = load_with_diffusers(WAN, folder, weight_name=DIFFUSERS_NAME)
    model.set_adapters(list(model.peft_config), weights=0.5)
    assert relative(our_output(WAN, folder, scale=0.5), WAN.reference_output(model)) < TOLERANCE


def test_what_is_written_states_rank_and_alpha_and_is_contiguous(tmp_path: pathlib.Path) -> None:
    """Stored memory that is not in the array's order would come back scrambled."""
    params = WAN.params
    adaptation = Adaptation(rank=RANK, alpha=ALPHA)
    low, network = strong_low_rank(params, adaptation), WAN.adapted(params)
    pairs = pairs_of_low_rank(low, network, "peft", adaptation.scale)
    transposed = {
        name: pair._replace(
            low_a=np.asfortranarray(pair.low_a), low_b=np.asfortranarray(pair.low_b)
        )
        for name, pair in pairs.items()
    }
    save_adapter(tmp_path / "peft", transposed, network.names, "peft", base="WEIGHTS")
    stored = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    for name, pair in pairs.items():
        np.testing.assert_array_equal(stored[f"base_model.model.{name}.lora_A.weight"], pair.low_a)
        np.testing.assert_array_equal(stored[f"base_model.model.{name}.lora_B.weight"], pair.low_b)
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    stated = {name: config[name] for name in ("r", "lora_alpha", "base_model_name_or_path")}
    assert stated == {"r": 2, "lora_alpha": 3, "base_model_name_or_path": "WEIGHTS"}
    with pytest.raises(ValueError, match="already holds safetensors"):
        save_adapter(tmp_path / "peft", pairs, network.names, "native")


# ---------------------------------------------------------------------------- what is refused


def test_alpha_of_kohya_is_exact_whatever_the_type(tmp_path: pathlib.Path) -> None:
    pair = LowRankPair(np.ones((3, 8), np.float32), np.ones((8, 3), np.float32), 0.7 / 3)
    save_adapter(
        tmp_path, {"mid_block.x": pair}, adapter_names("animatediff"), "comfyui", "bfloat16"
    )
    stored = load_file(tmp_path / "adapter.safetensors")
    assert stored["lora_unet_mid_block_x.alpha"] == np.float32(0.7)
    assert stored["lora_unet_mid_block_x.lora_up.weight"].dtype == ml_dtypes.bfloat16
    (read,) = read_adapter(tmp_path).pairs.values()
    assert read.scale == pytest.approx(0.7 / 3, rel=1e-6)
    np.testing.assert_array_equal(read.low_b, pair.low_b)


def test_tensors_that_wans_loader_reads_twice_keep_their_strength(tmp_path: pathlib.Path) -> None:
    """It scales those of the attention to the text where they lie, by the alpha beside them."""
    folder, expected = exported(WAN, "comfyui", tmp_path, "blocks/.*")
    tensors = load_torch_file(folder / "adapter.safetensors")
    for _ in range(2):
        model = load_with_diffusers(WAN, dict(tensors))
        assert relative(WAN.reference_output(model), expected) < TOLERANCE


def test_an_alpha_that_diffusers_ignores_is_applied_here(tmp_path: pathlib.Path) -> None:
    folder, expected = exported(WAN, "diffusers", tmp_path, "blocks/.*")
    halved = {
        name: 2.0 * tensor if ".lora_B." in name else tensor
        for name, tensor in load_file(folder / DIFFUSERS_NAME).items()
    }
    alpha = np.asarray(RANK / 2, np.float32)
    names = [name.removesuffix(".lora_A.weight") for name in halved if ".lora_A." in name]
    file = tmp_path / "halved.safetensors"
    save_file(halved | {f"{name}.alpha": alpha for name in names}, file)
    assert relative(our_output(WAN, file), expected) < TOLERANCE


def write(path: pathlib.Path, tensors: dict[str, tuple[int, ...]]) -> pathlib.Path:
    save_file({name: np.ones(shape, np.float32) for name, shape in tensors.items()}, path)
    return path


Q = "transformer.blocks.0.attn1.to_q.lora_"
QQ = {f"{Q}A.weight": (2, 48), f"{Q}B.weight": (48, 2)}


@pytest.mark.parametrize(
    "tensors, message",
    [
        ({f"{Q}A.weight": (2, 48)}, "lacks A or B of 'blocks.0.attn1.to_q'"),
        ({f"{Q}B.weight": (48, 2)}, "lacks A or B of 'blocks.0.attn1.to_q'"),
        (QQ | {"transformer.blocks.0.attn1.to_q.alpha": (), "x.alpha": ()}, "lacks A or B of 'x'"),
        (QQ | {f"{Q}magnitude_vector": (48,)}, "lora_magnitude_vector'.*no DoRA"),
        (QQ | {f"{Q}B.bias": (48,)}, "lora_B.bias'.*biases"),
        (QQ | {"lora_unet_x.hada_w1_a": (2, 2)}, "hada_w1_a'.*LoHa"),
        (QQ | {"blocks.0.norm2.weight": (48,)}, "'blocks.0.norm2.weight'.*whole weights"),
        (
            {f"{Q}A.weight": (2, 48), f"{Q}B.weight": (48, 3)},
            r"A and B do not fit together: 'blocks.0.attn1.to_q A \(2, 48\) B \(48, 3\)'",
        ),
        ({f"{Q}A.weight": (0, 48), f"{Q}B.weight": (48, 0)}, "A and B do not fit together"),
        ({f"{Q}A.weight": (48,), f"{Q}B.weight": (48, 1)}, "A and B do not fit together"),
        (
            QQ | {"transformer.blocks.0.attn1.to_q.alpha": (2,)},
            r"alpha of 'blocks.0.attn1.to_q' is of shape \(2,\)",
        ),
        ({}, "holds no tensors"),
    ],
)
def test_tensors_that_are_no_pairs_are_named(
    tensors: dict[str, tuple[int, ...]], message: str, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(ValueError, match=message):
        read_adapter(write(tmp_path / "x.safetensors", tensors))


@pytest.mark.parametrize(
    "tensors, message",
    [
        (
            QQ | {k.replace("blocks.0", "blocks.7"): shape for k, shape in QQ.items()},
            "changes 'blocks.7.attn1.to_q', which are no matrices of this network .1 of 2 in all",
        ),
        (
            {k.replace("transformer.", "text_encoder."): shape for k, shape in QQ.items()},
            "changes 'text_encoder.blocks.0.attn1.to_q', which are no matrices",
        ),
        (
            {f"{Q}A.weight": (2, 40), f"{Q}B.weight": (48, 2)},
            r"other shapes: 'blocks.0.attn1.to_q: \(48, 40\), the network has \(48, 48\)'",
        ),
        (
            {f"{Q}A.weight": (2, 48), f"{Q}B.weight": (50, 2)},
            r"other shapes: 'blocks.0.attn1.to_q: \(50, 48\)",
        ),
        (
            QQ | {f"blocks.0.self_attn.q.lora_{x}.weight": QQ[f"{Q}{x}.weight"] for x in "AB"},
            "changes 'blocks.0.attn1.to_q' under two names",
        ),
    ],
)
def test_what_does_not_fit_the_network_is_named(
    tensors: dict[str, tuple[int, ...]], message: str, tmp_path: pathlib.Path
) -> None:
    file = read_adapter(write(tmp_path / "x.safetensors", tensors))
    with pytest.raises(ValueError, match=message):
        named_pairs(file, WAN.adapted(WAN.params))


def test_an_alpha_that_cannot_be_known_or_contradicts_itself_is_refused(
    tmp_path: pathlib.Path,
) -> None:
    names = {
        f"base_model.model.blocks.0.attn1.to_q.lora_{x}.weight": QQ[f"{Q}{x}.weight"] for x in "AB"
    }
    file = write(tmp_path / "adapter_model.safetensors", names)
    with pytest.raises(ValueError, match=r"no adapter_config.json beside it, where its alpha"):
        read_adapter(file)
    config, fields = (
        tmp_path / "adapter_config.json",
        {"peft_type": "LORA", "r": 2, "lora_alpha": 8},
    )
    for change, message in (
        ({"r": 4}, "says rank 4 of 'blocks.0.attn1.to_q', its matrix A has 2 rows"),
        ({"lora_alpha": None}, "lora_alpha is None; allowed: a number"),
        ({"peft_type": "LOHA"}, "describes LOHA, not LoRA"),
        ({"use_dora": True}, "describes DoRA, not LoRA"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights='pissa_niter_4': A and B"),
        ({"alpha_pattern": {"(": 1}}, "'.' is no pattern of modules"),
        ({"alpha_pattern": [1]}, "alpha_pattern is a list of 1; allowed: an object"),
        ({"rank_pattern": {"to_q": "2"}}, "rank_pattern: to_q is '2'; allowed: a whole number"),
    ):
        config.write_text(json.dumps(fields | change))
        with pytest.raises(ValueError, match=message):
            read_adapter(file)
    config.write_text(json.dumps(fields))
    assert read_adapter(tmp_path).pairs["blocks.0.attn1.to_q"].scale == 4.0
    stated = {
        "lora_adapter_metadata": json.dumps({"transformer.r": 2, "transformer.lora_alpha": 2})
    }
    tensors = {name: np.ones(shape, np.float32) for name, shape in QQ.items()}
    tensors["transformer.blocks.0.attn1.to_q.alpha"] = np.asarray(4, np.float32)
    save_file(tensors, tmp_path / "both.safetensors", stated)
    with pytest.raises(ValueError, match="is 4 in a tensor and 2 in the file's settings"):
        read_adapter(tmp_path / "both.safetensors")


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_an_adapter_that_started_in_the_base_is_refused_until_peft_makes_it_a_plain_one(
    start: str, tmp_path: pathlib.Path
) -> None:
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["to_q"], init_lora_weights=start)
    model = get_peft_model(WAN.make(), config)
    model.peft_config["default"].init_lora_weights = True  # as peft's documentation says
    model.save_pretrained(tmp_path / "start")
    model.peft_config["default"].init_lora_weights = start
    expected = WAN.reference_output(draw_adapter(model).base_model.model)
    model.save_pretrained(tmp_path / "made")
    with pytest.raises(ValueError, match="whose own matrices were changed too"):
        read_adapter(tmp_path / "made")
    model.save_pretrained(
        tmp_path / "plain", path_initial_model_for_weight_conversion=str(tmp_path / "start")
    )
    assert relative(our_output(WAN, tmp_path / "plain"), expected) < TOLERANCE


@pytest.mark.parametrize(
    "metadata, message",
    [
        ("[1]", "lora_adapter_metadata is a list of 1; allowed: an object"),
        ("{", "lora_adapter_metadata is not valid JSON"),
        ('{"transformer.r": 2}', "lora_adapter_metadata lacks 'lora_alpha'"),
        ('{"r": 2, "lora_alpha": 1e999}', "lora_alpha is inf; allowed: a number"),
    ],
)
def test_metadata_that_says_nothing_is_refused(
    metadata: str, message: str, tmp_path: pathlib.Path
) -> None:
    tensors = {name: np.ones(shape, np.float32) for name, shape in QQ.items()}
    save_file(tensors, tmp_path / "x.safetensors", {"lora_adapter_metadata": metadata})
    with pytest.raises(ValueError, match=message):
        read_adapter(tmp_path)
    tensors[f"{Q}A.weight"][0, 0] = np.nan
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="not finite in 'transformer.blocks.0.attn1.to_q.lora_A"):
        read_adapter(tmp_path)


def test_a_path_that_holds_no_one_adapter_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="must hold one .safetensors file, it holds none"):
        read_adapter(tmp_path)
    with pytest.raises(ValueError, match="x.bin is neither a folder nor a .safetensors file"):
        read_adapter(tmp_path / "x.bin")
    for name in "ab":
        write(tmp_path / f"{name}.safetensors", QQ)
    with pytest.raises(ValueError, match=r"it holds 2 \('a.safetensors', 'b.safetensors'\)"):
        read_adapter(tmp_path)
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="a.safetensors is not a readable safetensors file"):
        read_adapter(tmp_path / "a.safetensors")


def test_what_is_trained_and_what_the_adapter_changes_must_be_the_same_matrices(
    tmp_path: pathlib.Path,
) -> None:
    params = WAN.params
    network = WAN.adapted(params)
    file = read_adapter(write(tmp_path / "x.safetensors", QQ))
    pairs = named_pairs(file, network)
    for trained, message in (
        (
            ".*/self_attention/(q|k)/kernel",
            "takes in what the adapter does not change: 'blocks/self_a",
        ),
        (
            ".*/cross_attention/q/kernel",
            "leaves out what the adapter changes: 'blocks.0.attn1.to_q'",
        ),
    ):
        adaptation = Adaptation(trained=trained, rank=2)
        low = adaptation.split(params, jax.random.key(0))[0]
        with pytest.raises(ValueError, match=f"adaptation.trained {message}"):
            fill_low_rank(low, pairs, network, file.layout, adaptation.scale)
    adaptation = Adaptation(trained=".*/self_attention/q/kernel", rank=2)
    low = adaptation.split(params, jax.random.key(0))[0]
    _, fresh = fill_low_rank(low, pairs, network, file.layout, adaptation.scale)
    assert fresh == ["blocks.1.attn1.to_q"], "a layer that the adapter lacks starts at nothing"
