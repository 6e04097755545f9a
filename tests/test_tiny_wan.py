"""The commands that experiments/tiny_wan.py lists, as they stand there, one after the other."""

import json
import pathlib
import shlex
import unittest.mock

import av
import numpy as np
import pytest
from diffusers import AutoencoderKLWan, WanTransformer3DModel

from experiments import tiny_wan
from tpdiff_jax import main
from tpdiff_jax.command_line import parse


def documented_commands() -> list[list[str]]:
    """The words of every command of the package in the module's docstring."""
    text = (tiny_wan.__doc__ or "").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("python -m tpdiff_jax.main")]


@pytest.mark.slow
def test_the_documented_commands_go_from_videos_to_videos_of_prompts(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = pathlib.Path.cwd()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(repository / "configs")
    assert tiny_wan.main(["--out=tiny_wan", "--num_clips=16"]) == 0
    commands = documented_commands()
    assert len(commands) == 6
    for words in commands:
        steps = [] if "--mode" in " ".join(words) else ["--config.train.num_steps=4"]
        with unittest.mock.patch.object(main, "set_up_jax"):  # jax has long started
            assert main.run_mode(parse(["tpdiff_jax", *words[3:], *steps])) == 0

    out = tmp_path / "tiny_wan"
    prompts = (out / "prompts.txt").read_text().splitlines()
    for folder in (out / "shown", out / "adapted", out / "run" / "samples"):
        videos = sorted(folder.glob("*.mp4"))
        assert len(videos) == len(prompts), folder
        for video, prompt in zip(videos, prompts, strict=True):
            assert video.stem[5:] == prompt.replace(" ", "_")
            with av.open(str(video)) as container:
                assert len(list(container.decode(video=0))) == 17
    assert json.loads((out / "run" / "results.json").read_text())["counts"]["steps"] == 4
    counts = json.loads((out / "low_rank" / "results.json").read_text())["counts"]
    assert counts["trained_parameters"] < counts["parameters"]

    # diffusers opens both: the weights that were written, and those that were trained.
    assert AutoencoderKLWan.from_pretrained(out / "vae").config.z_dim == 4
    model = WanTransformer3DModel.from_pretrained(out / "transformer")
    assert np.isfinite(model.proj_out.weight.detach().numpy()).all()
    assert float(model.proj_out.weight.detach().abs().max()) > 0.0, "trained away from zero"
