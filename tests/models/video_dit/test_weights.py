"""The video DiT's own layout: names, a round trip bit for bit, and a run that starts from it."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.tiny import tiny_config
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.export import export_run
from tpdiff_jax.generation.from_checkpoint import OpenedRun
from tpdiff_jax.models import MODELS, VideoDiT, VideoDiTConfig
from tpdiff_jax.models.published import PUBLISHED
from tpdiff_jax.models.video_dit.weights import (
    load_video_dit,
    read_video_dit_config,
    save_video_dit,
)
from tpdiff_jax.training.initial_state import make_state
from tpdiff_jax.weights import tensor_files
from tpdiff_jax.weights.key_table import flatten_params

FILE = "diffusion_pytorch_model.safetensors"
CONFIG = VideoDiTConfig(
    channels=2, patch_size=2, hidden_size=16, depth=2, num_heads=2, mlp_ratio=2.0, num_classes=3
)


def random_params(config: VideoDiTConfig) -> Any:
    """Numbers without a pattern in every parameter; fresh ones are zeros in part."""
    shapes = jax.eval_shape(VideoDiT(config).init, jax.random.key(0))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: rng.standard_normal(a.shape).astype(np.float32), shapes)


def assert_same(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(
    "fields", [{"attention": "factorised"}, {"attention": "joint"}, {"level_channels": (4,)}]
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_parameter_survives_the_round_trip_bit_for_bit(
    dtype: str, fields: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    config = dataclasses.replace(CONFIG, **fields)
    stored = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    params = jax.tree.map(
        lambda x: x.astype(stored).astype(np.float32), random_params(config)
    )  # what the stored type can hold
    save_video_dit(tmp_path, params, config, "tpdiff", dtype)
    assert {tensor.dtype for tensor in load_file(tmp_path / FILE).values()} == {stored}
    assert read_video_dit_config(tmp_path) == config
    found = load_video_dit(tmp_path, config)
    assert jax.tree.structure(found) == jax.tree.structure(params)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}
    assert_same(found, params)
    again = tmp_path / "again"
    PUBLISHED["video_dit"].save(again, found, config, "tpdiff", dtype, None)
    assert (again / FILE).read_bytes() == (tmp_path / FILE).read_bytes()


def test_names_and_shapes_are_those_of_the_page(tmp_path: pathlib.Path) -> None:
    params = random_params(CONFIG)
    save_video_dit(tmp_path, params, CONFIG, "tpdiff", "float32")
    tensors, leaves = load_file(tmp_path / FILE), flatten_params(params)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    assert shapes["stem.patch.weight"] == (16, 8), "a patch of 2 x 2 x 2 values"
    assert shapes["stem.label.weight"] == (4, 16), "three classes and none"
    assert shapes["blocks.1.attention.time.qkv.weight"] == (48, 16)
    assert shapes["blocks.1.attention.time.q_norm.weight"] == (8,)
    assert shapes["blocks.0.feed_forward.inner.weight"] == (32, 16)
    assert shapes["blocks.0.modulation.bias"] == (3 * 3 * 16,)
    for layer in (0, 1):
        np.testing.assert_array_equal(
            tensors[f"blocks.{layer}.feed_forward.inner.weight"],
            leaves["blocks/feed_forward/inner/kernel"][layer].T,
        )
    np.testing.assert_array_equal(tensors["stem.label.weight"], leaves["stem/label/table"])
    assert sum(tensor.size for tensor in tensors.values()) == sum(x.size for x in leaves.values())
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "_class_name": "VideoDiT",
        **{"channels": 2, "patch_size": 2, "hidden_size": 16, "depth": 2, "num_heads": 2},
        **{"mlp_ratio": 2.0, "attention": "factorised", "qk_norm": True, "activation": "gelu"},
        **{"rope_theta": 10000.0, "num_classes": 3, "level_channels": []},
    }


def test_a_file_of_an_earlier_build_has_no_levels(tmp_path: pathlib.Path) -> None:
    params = random_params(CONFIG)
    save_video_dit(tmp_path, params, CONFIG, "tpdiff", "float32")
    fields = json.loads((tmp_path / "config.json").read_text())
    del fields["level_channels"]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert read_video_dit_config(tmp_path) == CONFIG
    assert_same(load_video_dit(tmp_path, CONFIG), params)


def test_levels_are_named_by_way_and_index(tmp_path: pathlib.Path) -> None:
    config = dataclasses.replace(CONFIG, patch_size=4, level_channels=(4, 6))
    save_video_dit(tmp_path, random_params(config), config, "tpdiff", "float32")
    shapes = {name: tensor.shape for name, tensor in load_file(tmp_path / FILE).items()}
    assert shapes["folds.into.0.weight"] == (4, 2), "of single pixels of two channels"
    assert shapes["folds.into.1.weight"] == (6, 4 * 4)
    assert shapes["down_0.0.attention.qkv.weight"] == (12, 4)
    assert shapes["up_1.0.first.weight"] == (6, 9 * 6)
    assert shapes["stem.patch.weight"] == (16, 4 * 6), "of the last level's pixels"


def test_how_a_network_computes_does_not_show(tmp_path: pathlib.Path) -> None:
    params = random_params(CONFIG)
    other = {"scan_layers": False, "remat": "full", "dtype": "bfloat16", "attention_kernel": "xla"}
    save_video_dit(tmp_path, params, dataclasses.replace(CONFIG, **other), "tpdiff", "float32")
    assert_same(load_video_dit(tmp_path, CONFIG), params)
    assert read_video_dit_config(tmp_path) == CONFIG


def test_shards_are_read_as_one_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensor_files.write_folder, "__defaults__", (4000,))
    params = random_params(CONFIG)
    save_video_dit(tmp_path, params, CONFIG, "tpdiff", "float32")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert_same(load_video_dit(tmp_path, CONFIG), params)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"depth": 3}, "says depth=2, the config has depth=3"),
        ({"attention": "joint"}, "says attention=factorised, the config has attention=joint"),
        ({"num_classes": 4}, "says num_classes=3, the config has num_classes=4"),
        ({"qk_norm": False}, "says qk_norm=True, the config has qk_norm=False"),
        (
            {"level_channels": (4,)},
            r"says level_channels=\(\), the config has level_channels=\(4,\)",
        ),
    ],
)
def test_another_network_is_refused_by_the_entry(
    change: dict[str, Any], told: str, tmp_path: pathlib.Path
) -> None:
    save_video_dit(tmp_path, random_params(CONFIG), CONFIG, "tpdiff", "float32")
    other = dataclasses.replace(CONFIG, **change)
    with pytest.raises(ValueError, match=told):
        load_video_dit(tmp_path, other)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match="tensor '"):  # by the tensors themselves, then
        load_video_dit(tmp_path, dataclasses.replace(CONFIG, hidden_size=32))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (None, "holds no config.json"),
        ({"_class_name": "FluxTransformer2DModel"}, "says {'_class_name': 'FluxTransformer2DM"),
        ({"_class_name": "VideoDiT", "depth": 2}, "lacks channels, patch_size"),
        ({"depth": 0}, "config.json: model.depth is 0; allowed: above 0"),
        ({"depth": "two"}, "config.json"),
    ],
)
def test_a_config_that_is_none_is_one_line(
    fields: dict[str, Any] | None, told: str, tmp_path: pathlib.Path
) -> None:
    save_video_dit(tmp_path, random_params(CONFIG), CONFIG, "tpdiff", "float32")
    path = tmp_path / "config.json"
    if fields is None:
        path.unlink()
    else:
        whole = json.loads(path.read_text()) if "_class_name" not in fields else {}
        path.write_text(json.dumps(whole | fields))
    with pytest.raises(ValueError, match=told):
        read_video_dit_config(tmp_path)


def test_a_tensor_that_is_missing_or_left_over_is_named(tmp_path: pathlib.Path) -> None:
    save_video_dit(tmp_path, random_params(CONFIG), CONFIG, "tpdiff", "float32")
    tensors = load_file(tmp_path / FILE)
    for changed, told in (
        ({k: v for k, v in tensors.items() if k != "head.patch.bias"}, "'head.patch.bias' is miss"),
        (tensors | {"blocks.2.modulation.bias": tensors["head.patch.bias"]}, "'blocks.2.modulat"),
        (tensors | {"head.patch.bias": np.zeros(3, np.float32)}, "has shape \\(3,\\)"),
    ):
        save_file(changed, tmp_path / FILE)
        with pytest.raises(ValueError, match=told):
            load_video_dit(tmp_path, CONFIG)


def test_a_run_is_exported_and_another_one_starts_from_it(tmp_path: pathlib.Path) -> None:
    experiment = build_experiment(tiny_config())
    params = random_params(experiment.network.config)
    folder = export_run(OpenedRun(tmp_path, 6, experiment, params), None, "float32")
    assert folder == tmp_path / "export" / "step_00000006"
    start = build_experiment(tiny_config(model__weights=str(folder), train__seed=5))
    state = make_state(start, jax.random.key(0))
    assert_same(state.params, params)
    assert_same(state.ema_params, params)
    with pytest.raises(ValueError, match="model.weights: .* says depth=1, the config has depth=2"):
        other = build_experiment(tiny_config(model__weights=str(folder), model__depth=2))
        make_state(other, jax.random.key(0))
    with pytest.raises(ValueError, match="--layout is 'diffusers'; allowed: 'tpdiff'"):
        export_run(OpenedRun(tmp_path, 7, experiment, params), "diffusers", "float32")


def test_every_network_can_be_exported() -> None:
    assert set(PUBLISHED) == set(MODELS)
    assert all(published.layouts for published in PUBLISHED.values())
