"""The bench against PyTorch: equal networks first, then ratios within a round."""

import dataclasses
import json

import numpy as np
import pytest

from bench import pytorch
from bench.pytorch import main, write_page
from tpdiff_jax.models import AnimateDiff

REPORT = {
    "network": "Flux",
    "device": {"platform": "cpu", "kind": "cpu"},
    "command": "python -m bench.pytorch",
    "clock": "time by the clock",
    "threads": 2,
    "parameters": 2_000_000,
    "tokens": 64,
    "forward_flops": 4e9,
    "differences": {"output": 1e-6},
    "is_different": False,
    "seconds": {
        "forward/tpdiff_jax": [1.0, 2.0, 4.0],
        "forward/PyTorch, eager": [1.5, 3.0, 6.0],
        "step/tpdiff_jax": [3.0, 6.0, 9.0],
    },
}
TINY = ["--heads=1", "--blocks", "1", "1", "--frames=2", "--frame_size=4", "--batch=1"]


def test_ratios_are_taken_within_a_round_and_a_step_counts_three_forwards():
    page = write_page(REPORT)
    assert "| forward | tpdiff_jax | 2000 [1500, 3000] | 2 | 1 [1, 1] |" in page
    assert "| forward | PyTorch, eager | 3000 [2250, 4500] | 1.33 | 1.5 [1.5, 1.5] |" in page
    assert "| step | tpdiff_jax | 6000 [4500, 7500] | 2 | 1 [1, 1] |" in page


def test_a_device_that_pytorch_does_not_see_is_bad_input(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(pytorch.jax, "default_backend", lambda: "tpu")
    assert main([f"--out={tmp_path}", *TINY]) == pytorch.EXIT_BAD_INPUT
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "JAX runs on tpu, where PyTorch" in line


@pytest.mark.slow
def test_networks_that_differ_are_not_timed(monkeypatch, tmp_path):
    """One perturbed parameter of the twin is enough."""

    def wrong_model(*args):
        model = pytorch.FLUX.make_model(*args)
        model.proj_out.weight.data += 0.1
        return model

    quick = [f"--out={tmp_path}", "--rounds=1", "--nocompile", *TINY]
    assert main(quick) == 0
    seconds = json.loads((tmp_path / "pytorch.json").read_text())["seconds"]
    assert len(seconds) == 6 and np.min(list(seconds.values())) > 0
    monkeypatch.setitem(pytorch.TWINS, "flux", pytorch.FLUX._replace(make_model=wrong_model))
    assert main(quick) == pytorch.EXIT_DIFFERENT
    report = json.loads((tmp_path / "pytorch.json").read_text())
    assert report["seconds"] == {} and report["differences"]["output"] > 1e-3
    assert "**The networks differ" in (tmp_path / "pytorch.md").read_text()


@pytest.mark.slow
def test_animatediff_equals_diffusers_and_is_timed(monkeypatch, tmp_path):
    """Of two levels with one block in each: compiling more of the same takes minutes."""

    def shallow_network(options):
        config = pytorch.ANIMATEDIFF.network(options).config
        widths = config.level_channels[:2]
        return AnimateDiff(dataclasses.replace(config, level_channels=widths, level_depth=1))

    shallow = pytorch.ANIMATEDIFF._replace(network=shallow_network)
    monkeypatch.setitem(pytorch.TWINS, "animatediff", shallow)
    quick = [f"--out={tmp_path}", "--rounds=1", "--nocompile", "--network=animatediff"]
    assert main([*quick, "--heads=1", "--frames=2", "--frame_size=8", "--batch=1"]) == 0
    report = json.loads((tmp_path / "pytorch.json").read_text())
    assert report["network"] == "AnimateDiff" and len(report["seconds"]) == 6


@pytest.mark.slow
def test_the_video_dit_written_in_pytorch_is_ours_and_is_timed(tmp_path):
    quick = [f"--out={tmp_path}", "--rounds=1", "--nocompile", "--network=video_dit", *TINY]
    assert main([*quick, "--frame_size=16"]) == 0
    report = json.loads((tmp_path / "pytorch.json").read_text())
    assert report["network"] == "Video DiT" and len(report["seconds"]) == 6
    assert max(report["differences"].values()) < 1e-5
