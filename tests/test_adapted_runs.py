"""Runs that start from an adapter, are sampled with one and are written as one."""

import logging
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
import pytest
import torch
from absl import logging as absl_logging
from safetensors.numpy import load_file, save_file

from tests.forced_devices import last_line_on
from tests.models.adapter_cases import ANIMATEDIFF
from tests.test_export import tiny_animatediff
from tests.tiny import tiny_config
from tpdiff_jax import command_line, main, train
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.export import export_adapter
from tpdiff_jax.generation import from_checkpoint
from tpdiff_jax.generation.from_checkpoint import GenerateFlags, OpenedRun, open_run
from tpdiff_jax.models.animatediff.weights import save_animatediff
from tpdiff_jax.train_state import averaged_params
from tpdiff_jax.training.initial_state import make_state, run_keys
from tpdiff_jax.weights.adapter_files import ADAPTER_LAYOUTS

LOW_RANK = {
    "model__depth": 2,
    "adaptation__rank": 2,
    "adaptation__alpha": 3.0,
    "optim__ema_decay": 0.0,
    "train__num_steps": 3,
    "optim__learning_rate": 1e-2,
    "optim__warmup_steps": 0,
    "optim__schedule": "constant",
}


def close(found: Any, expected: Any, rtol: float = 1e-6) -> None:
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-7), found, expected
    )


def with_changes(params: Any, base: Any, times: float) -> Any:
    """The base with the changes that `params` has so many times."""
    return jax.tree.map(lambda w, b: b + times * (w - b), params, base)


def start_of(config: Any) -> Any:
    """The state before the first step, and the network's parameters in it."""
    experiment = build_experiment(config)
    state = make_state(experiment, run_keys(experiment.train.seed)[0])
    return state, averaged_params(experiment.task, state)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> OpenedRun:
    """A run of low-rank changes to the video DiT, after three steps."""
    workdir = tmp_path_factory.mktemp("run")
    train.train(build_experiment(tiny_config(**LOW_RANK)), workdir)
    return open_run(workdir)


@pytest.fixture(scope="module")
def base() -> Any:
    """The parameters that the run's changes stand beside."""
    return start_of(tiny_config(model__depth=2))[1]


@pytest.mark.parametrize("layout", ADAPTER_LAYOUTS)
def test_a_run_starts_where_another_was_written(
    run: OpenedRun, layout: str, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With another rank and alpha; what is averaged starts there too."""
    folder = export_adapter(run, layout, "float32", tmp_path / layout)
    other = LOW_RANK | {"adaptation__rank": 3, "adaptation__alpha": 1.0}
    absl_logging.use_absl_handler()
    with caplog.at_level(logging.INFO, logger="absl"):
        state, start = start_of(tiny_config(adaptation__weights=str(folder), **other))
    close(start, run.params)
    close(state.ema_params, state.params)
    low_a = state.params["blocks"]["attention"]["space"]["qkv"]["lora_a"]
    assert low_a.shape[-1] == 3 and np.abs(low_a[..., 2]).min() > 0.0, "the rest starts fresh"
    assert f"(layout {layout}: " in caplog.text
    assert "rank 2, alpha / rank" in caplog.text


def test_the_changes_of_a_run_are_large_enough_to_be_missed(run: OpenedRun, base: Any) -> None:
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), run.params, base)
    assert max(jax.tree.leaves(moved["blocks"])) > 1e-3


def test_a_run_is_sampled_with_an_adapter_at_a_strength(
    run: OpenedRun, base: Any, tmp_path: pathlib.Path
) -> None:
    """On a run of other changes: both are added; at -1 the run's own are taken away."""
    folder = export_adapter(run, "diffusers", "float32", tmp_path / "adapter")
    for scale in (None, "0.5", -1.0, 0.0):
        flags = GenerateFlags(adapter=str(folder), adapter_scale=scale)
        opened = open_run(run.workdir, overrides=flags)
        factor = 1.0 if scale is None else float(scale)
        close(opened.params, with_changes(run.params, base, 1.0 + factor), rtol=1e-5)
    file = str(folder / "pytorch_lora_weights.safetensors")
    by_path = open_run(run.workdir, overrides=GenerateFlags(adapter=file))
    close(by_path.params, with_changes(run.params, base, 2.0), rtol=1e-5)


def test_faults_of_an_adapter_name_the_flag_or_the_field(
    run: OpenedRun, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(ValueError, match="--adapter: .*nowhere is neither a folder nor a"):
        open_run(run.workdir, overrides=GenerateFlags(adapter=str(tmp_path / "nowhere")))
    for scale in ("nan", "inf", "much", float("nan")):
        flags = GenerateFlags(adapter=str(tmp_path), adapter_scale=scale)
        with pytest.raises(ValueError, match=f"--adapter_scale is {scale}; allowed: finite numb"):
            open_run(run.workdir, overrides=flags)
    with pytest.raises(ValueError, match="--adapter_scale=0.5 needs --adapter"):
        open_run(run.workdir, overrides=GenerateFlags(adapter_scale=0.5))
    with pytest.raises(ValueError, match="adaptation.weights: .* must hold one .safetensors file"):
        start_of(tiny_config(adaptation__weights=str(tmp_path), **LOW_RANK))
    with pytest.raises(ValueError, match="adaptation.weights=X is where .* adaptation.rank is 0"):
        build_experiment(tiny_config(adaptation__weights="X"))
    folder = export_adapter(run, "peft", "float32", tmp_path / "peft")
    narrow = LOW_RANK | {"adaptation__rank": 1}
    with pytest.raises(
        ValueError, match="adaptation.weights: adaptation.rank is 1; allowed: at least 2"
    ):
        start_of(tiny_config(adaptation__weights=str(folder), **narrow))


def test_only_runs_of_low_rank_changes_are_written_as_adapters(
    run: OpenedRun, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(ValueError, match="--what=adapter is for runs .*adaptation.rank is 0"):
        export_adapter(run._replace(low_rank=None), None, "float32", tmp_path)
    with pytest.raises(ValueError, match="--layout is 'separate'; allowed: 'peft', 'diffusers'"):
        export_adapter(run, "separate", "float32", tmp_path)
    folder = export_adapter(run, None, "bfloat16")
    assert folder == run.workdir / "export" / "step_00000003_peft"
    names = set(load_file(folder / "adapter_model.safetensors"))
    assert "base_model.model.blocks.1.attention.space.qkv.lora_A.weight" in names


def test_the_command_writes_adapters(run: OpenedRun, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "adapter"
    argv = ["tpdiff", "--mode=export", "--what=adapter", "--layout=diffusers", f"--out={out}"]
    command = command_line.parse([*argv, f"--workdir={run.workdir}", "--dtype=float16"])
    assert main.run_mode(command) == 0
    tensors = load_file(out / "pytorch_lora_weights.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float16)}
    name = "transformer.blocks.1.feed_forward.inner.lora_{}.weight"
    low = run.low_rank["blocks"]["feed_forward"]["inner"]  # type: ignore[index]
    expected = 1.5 * np.asarray(low["lora_a"][1] @ low["lora_b"][1]).T
    found = np.float32(tensors[name.format("B")]) @ np.float32(tensors[name.format("A")])
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-4)


@pytest.mark.slow
def test_a_run_needs_its_adapter_only_once(run: OpenedRun, tmp_path: pathlib.Path) -> None:
    folder = export_adapter(run, "native", "float32", tmp_path / "adapter")
    fields = LOW_RANK | {"adaptation__weights": str(folder), "train__num_steps": 1}
    train.train(build_experiment(tiny_config(**fields)), tmp_path / "run")
    shutil.rmtree(folder)
    longer = fields | {"train__num_steps": 2}
    train.train(build_experiment(tiny_config(**longer)), tmp_path / "run")
    assert open_run(tmp_path / "run").step == 2


def test_published_weights_are_sampled_with_an_adapter_where_there_is_no_run(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_animatediff(tmp_path / "weights", ANIMATEDIFF.params, ANIMATEDIFF.network.config)
    config = tiny_animatediff(tmp_path / "weights")
    module, rng = "mid_block.resnets.0.conv1", np.random.default_rng(0)
    down, up = (rng.standard_normal(s).astype(np.float32) for s in ((3, 16, 3, 3), (16, 3, 1, 1)))
    file, stem = tmp_path / "adapter.safetensors", f"lora_unet_{module.replace('.', '_')}"
    save_file({f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}, file)
    monkeypatch.setattr(
        from_checkpoint,
        "build_experiment",
        lambda config, **more: build_experiment(config, frame_shape=(2, 4, 6, 3), **more),
    )
    flags = GenerateFlags(adapter=str(file), adapter_scale=2.0)
    opened = open_run(tmp_path / "empty", config=config, overrides=flags)
    tensors = ANIMATEDIFF.make().state_dict()
    change = np.einsum("or,rihw->oihw", up[:, :, 0, 0], down)
    tensors[f"{module}.weight"] += 2.0 * torch.from_numpy(change)
    close(opened.params, ANIMATEDIFF.to_params(tensors), rtol=1e-5)
    assert (opened.step, opened.low_rank) == (0, None)
    config.model.weights = ""
    with pytest.raises(ValueError, match="empty is not a run folder"):
        open_run(tmp_path / "empty", config=config, overrides=flags)


def test_flags_of_adapters_belong_to_their_modes() -> None:
    read = command_line.parse(
        ["tpdiff", "--mode=sample", "--workdir=W", "--adapter=A", "--adapter_scale=0.5"]
    )
    assert (read.values["adapter"], read.values["adapter_scale"]) == ("A", "0.5")
    read = command_line.parse(["tpdiff", "--mode=export", "--workdir=W", "--what=adapter"])
    assert read.values["what"] == "adapter"
    for argv, message in (
        (["--mode=train", "--adapter=A"], "--adapter is no flag of --mode=train but of sample, ev"),
        (["--mode=export", "--what=lora"], "--what is 'lora'; allowed: 'weights', 'adapter'"),
        (["--mode=sample", "--adapter=gs://b/a"], "--adapter=gs://b/a is an address"),
    ):
        with pytest.raises(ValueError, match=message):
            command_line.parse(["tpdiff", "--workdir=W", *argv])


MESHES = """
import math, pathlib, sys
import jax, numpy as np
from safetensors.numpy import save_file
from tests.tiny import tiny_config
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.models.adapter_names import adapter_names
from tpdiff_jax.models.adapters import AdaptedNetwork, merge_adapter, named_pairs
from tpdiff_jax.train_state import averaged_params
from tpdiff_jax.training.initial_state import make_state
from tpdiff_jax.weights.adapter_files import read_adapter

file, rng = pathlib.Path(FOLDER) / "adapter.safetensors", np.random.default_rng(0)
low = {"A": rng.standard_normal((2, 32)), "B": rng.standard_normal((96, 2))}
stem = "transformer.blocks.0.attention.space.qkv.lora_"
save_file({f"{stem}{x}.weight": m.astype(np.float32) for x, m in low.items()}, file)
kernels = []
for sizes in (dict(data=1), dict(data=2, fsdp=2), dict(fsdp=2, tensor=2)):
    fields = {f"mesh__{axis}": size for axis, size in sizes.items()}
    config = tiny_config(
        adaptation__rank=2, adaptation__trained=".*space/qkv/kernel",
        adaptation__weights=str(file), **fields
    )
    experiment = build_experiment(config, jax.devices()[: math.prod(sizes.values())])
    state = make_state(experiment, jax.random.key(0))
    network = AdaptedNetwork(adapter_names("video_dit"), experiment.network.config, state.frozen)
    adapter = read_adapter(file)
    pairs = named_pairs(adapter, network)
    merged = merge_adapter(state.frozen, pairs, network, adapter.layout, 1.0)
    for params in (averaged_params(experiment.task, state), merged):
        kernels.append(np.asarray(params["blocks"]["attention"]["space"]["qkv"]["kernel"]))
    for leaf, before in zip(jax.tree.leaves(merged), jax.tree.leaves(state.frozen)):
        assert leaf.sharding == before.sharding
    base = np.asarray(state.frozen["blocks"]["attention"]["space"]["qkv"]["kernel"])
    kernels.append(base + (low["B"] @ low["A"]).T)
for kernel in kernels[1:]:
    np.testing.assert_allclose(kernel, kernels[0], rtol=1e-5, atol=1e-6)
print("equal")
"""


@pytest.mark.slow
def test_adapters_are_merged_and_started_from_on_every_mesh(tmp_path: pathlib.Path) -> None:
    assert last_line_on(4, MESHES.replace("FOLDER", repr(str(tmp_path)))) == "equal"
