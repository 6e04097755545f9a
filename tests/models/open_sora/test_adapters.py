"""Adapters of Open-Sora's matrices by peft: the same output both ways, under its own names."""

import pathlib

import numpy as np
import pytest
from peft import LoraConfig, PeftModel, get_peft_model

from tests.models.adapter_cases import (
    FRAMES,
    POSITIONS,
    AdapterCase,
    draw_adapter,
    relative,
    strong_low_rank,
)
from tests.models.open_sora import open_sora_reference as reference
from tpdiff_jax.models import OpenSora
from tpdiff_jax.models.adapter_export import save_adapter
from tpdiff_jax.models.adapters import merge_adapter, named_pairs, pairs_of_low_rank
from tpdiff_jax.optim.adaptation import Adaptation
from tpdiff_jax.weights.adapter_files import read_adapter

ALPHA, RANK, TOLERANCE = 3.0, 2, 1e-4
TARGETS = r".*\.(qkv|q_linear|kv_linear|proj|fc2)|t_block\.1"


def case_of(form: str) -> AdapterCase:
    import torch

    config, (x, t, cond) = reference.CONFIGS[form], reference.make_inputs(FRAMES)
    return AdapterCase(
        "open_sora",
        OpenSora(config),
        lambda: reference.make_reference(form),
        lambda tensors: reference.to_params(tensors, config),
        (x, t, cond),
        lambda model: reference.run_reference(
            model, torch.from_numpy(x), t, POSITIONS, cond
        ).numpy(),
    )


@pytest.mark.parametrize("form", reference.CONFIGS)
def test_peft_computes_the_same_with_our_adapter_of_every_matrix(
    form: str, tmp_path: pathlib.Path
) -> None:
    case = case_of(form)
    params, adaptation = case.params, Adaptation(trained="", rank=RANK, alpha=ALPHA)
    low, network = strong_low_rank(params, adaptation), case.adapted(params)
    pairs = pairs_of_low_rank(low, network, "peft", adaptation.scale)
    save_adapter(tmp_path, pairs, network.names, "peft")
    expected = case.output(adaptation.merge(low, params))
    assert relative(case.reference_output(case.make()), expected) > 0.1, "the adapter matters"
    model = PeftModel.from_pretrained(case.make(), tmp_path).merge_and_unload()
    assert relative(case.reference_output(model), expected) < TOLERANCE


@pytest.mark.parametrize("form", reference.CONFIGS)
def test_we_compute_the_same_with_an_adapter_of_pefts(form: str, tmp_path: pathlib.Path) -> None:
    case = case_of(form)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS)
    model = draw_adapter(get_peft_model(case.make(), config))
    model.save_pretrained(tmp_path)
    expected = case.reference_output(model.merge_and_unload())
    params, file = case.params, read_adapter(tmp_path)
    assert relative(case.output(params), expected) > 0.1, "the adapter matters"
    network = case.adapted(params)
    merged = merge_adapter(params, named_pairs(file, network), network, file.layout, 1.0)
    assert relative(case.output(merged), expected) < TOLERANCE
    assert np.isfinite(expected).all()
