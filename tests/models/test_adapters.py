"""Adapters from and for peft, diffusers and ComfyUI: the same output of the network, both ways."""

import pathlib
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AnimateDiffPipeline, FluxPipeline
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from safetensors.numpy import load_file
from safetensors.torch import save_file

from tests.models.adapter_cases import (
    ANIMATEDIFF,
    FLUX,
    FLUX_NATIVE,
    AdapterCase,
    relative,
    strong_low_rank,
    with_peft,
)
from tpdiff_jax.models.adapter_export import save_adapter
from tpdiff_jax.models.adapters import (
    fill_low_rank,
    merge_adapter,
    named_pairs,
    pairs_of_low_rank,
)
from tpdiff_jax.optim.adaptation import Adaptation
from tpdiff_jax.weights.adapter_files import read_adapter

ALPHA, RANK = 3.0, 2  # alpha / rank is no power of two and not 1
TOLERANCE = 1e-5
PATTERNS = {"flux": "", "animatediff": "(down|middle|up|stem|head)/.*"}


def exported(
    case: AdapterCase, layout: str, folder: pathlib.Path, trained: str | None = None
) -> tuple[pathlib.Path, Any]:
    """Write a strong adapter of ours; return the folder and our output with it."""
    params = case.params
    adaptation = Adaptation(
        trained=PATTERNS[case.name] if trained is None else trained, rank=RANK, alpha=ALPHA
    )
    low = strong_low_rank(params, adaptation)
    network = case.adapted(params)
    pairs = pairs_of_low_rank(low, network, layout, adaptation.scale)
    save_adapter(folder, pairs, network.names, layout)
    return folder, case.output(adaptation.merge(low, params))


def load_with_peft(case: AdapterCase, folder: pathlib.Path) -> torch.nn.Module:
    model = PeftModel.from_pretrained(case.make(), folder)
    return model.merge_and_unload() if case.name == "animatediff" else model.base_model.model


def load_with_diffusers(case: AdapterCase, path: Any, **where: Any) -> torch.nn.Module:
    """As a pipeline's `load_lora_weights` does, without its other networks.

    AnimateDiff's changes are merged, because diffusers' motion modules call their projections by a
    keyword that peft's layers do not take.
    """
    model = case.make()
    if case.name == "flux":
        kwargs = {"return_alphas": True, "return_lora_metadata": True}
        tensors, alphas, metadata = FluxPipeline.lora_state_dict(path, **where, **kwargs)
        prefix = "transformer"
    else:
        tensors, alphas, metadata = AnimateDiffPipeline.lora_state_dict(
            path, return_lora_metadata=True, **where
        )
        prefix = "unet"
    model.load_lora_adapter(tensors, prefix=prefix, network_alphas=alphas, metadata=metadata)
    if case.name == "animatediff":
        model.fuse_lora()
        model.unload_lora()
    return model


@pytest.mark.parametrize("case", [FLUX, ANIMATEDIFF], ids=["flux", "animatediff"])
def test_peft_computes_the_same_with_our_adapter_of_every_matrix(
    case: AdapterCase, tmp_path: pathlib.Path
) -> None:
    folder, expected = exported(case, "peft", tmp_path)
    assert relative(case.reference_output(case.make()), expected) > 0.1, "the adapter matters"
    assert relative(case.reference_output(load_with_peft(case, folder)), expected) < TOLERANCE


@pytest.mark.parametrize("case", [FLUX, ANIMATEDIFF], ids=["flux", "animatediff"])
def test_diffusers_computes_the_same_with_our_adapter_by_folder_and_by_path(
    case: AdapterCase, tmp_path: pathlib.Path
) -> None:
    folder, expected = exported(case, "diffusers", tmp_path)
    name = "pytorch_lora_weights.safetensors"
    by_folder = load_with_diffusers(case, folder, weight_name=name)
    assert relative(case.reference_output(by_folder), expected) < TOLERANCE
    by_path = load_with_diffusers(case, str(folder / name))
    assert relative(case.reference_output(by_path), expected) < TOLERANCE


@pytest.mark.parametrize(
    "case, trained",
    [(FLUX, ""), (ANIMATEDIFF, ".*/(spatial|residual)/.*|.*sample/.*")],
    ids=["flux", "animatediff's U-Net"],
)
def test_diffusers_computes_the_same_with_our_adapter_in_comfyuis_layout(
    case: AdapterCase, trained: str, tmp_path: pathlib.Path
) -> None:
    folder, expected = exported(case, "comfyui", tmp_path, trained)
    model = load_with_diffusers(case, str(folder / "adapter.safetensors"))
    assert relative(case.reference_output(model), expected) < TOLERANCE
