"""From MP4 files and captions to videos of prompts, through every command on the way."""

import json
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from configs import captioned_digits
from experiments.captioned_digits import arm_overrides, main, prepare_clips, write_videos
from experiments.grid.overrides import read_config
from experiments.grid.plan import mean_step_flops
from experiments.tiny_text_encoders import write_text_encoders
from tests.test_prepare import make_spec
from tests.tiny import REPO, SIZES, set_field
from tpdiff_jax.data import MovingDigitsSpec, VideoRecordsSpec
from tpdiff_jax.encoders import make_clip_encoder, open_text_encoder
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.generation.from_checkpoint import open_run
from tpdiff_jax.generation.prompts import SampleFlags, read_requests
from tpdiff_jax.prepare import prepare
from tpdiff_jax.sample import sample_run
from tpdiff_jax.train import train

NUM_TOKENS = 9
OVERRIDES: dict[str, Any] = {
    **{k: v for k, v in SIZES.items() if k.split(".")[0] not in ("data", "model")},
    "model.num_heads": 1,
    "model.num_double_blocks": 1,
    "model.num_single_blocks": 1,
    "model.text_dim": 16,
    "model.num_text_tokens": NUM_TOKENS,
    "model.pooled_dim": 16,
    "pyramid.frame_strides": (2, 1),
    "train.num_steps": 2,
    "train.batch_size": 4,
    "alignment.group_size": 4,
    "sample.num_steps": 2,
    "sample.batch_size": 2,
}
WITHOUT_TORCH = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "tokenizers"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import tpdiff_jax.main, tpdiff_jax.train, tpdiff_jax.sample, tpdiff_jax.encoders
"""
PROMPTS = ["the digit 3 moves fast to the left", "the digit 7 moves slowly to the top"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Prepared clips and the text encoders that they were prepared with."""
    out, digits = tmp_path_factory.mktemp("captioned"), MovingDigitsSpec(num_frames=8)
    captions = write_videos(out / "videos", digits, 6)
    write_text_encoders(out / "text_encoders", [*captions, *PROMPTS], width=16)
    model = captioned_digits.get_config().model
    model.num_text_tokens = NUM_TOKENS
    prepare_clips(out, digits, model)
    return out


def make_config(folder: pathlib.Path, **fields: Any) -> Any:
    config = captioned_digits.get_config()
    for name, value in {**OVERRIDES, "data.folder": str(folder / "clips"), **fields}.items():
        set_field(config, name, value)
    return config


def test_clips_hold_what_the_encoder_says_of_their_captions(folder: pathlib.Path) -> None:
    dataset = VideoRecordsSpec(folder=str(folder / "clips"))
    clip, encoder = (
        dataset.clip("train", 0, 0),
        open_text_encoder("t5_clip", folder / "text_encoders", NUM_TOKENS),
    )
    said = encoder([clip["caption"], ""])
    for name in ("text", "text_mask", "pooled"):
        np.testing.assert_array_equal(clip[name], said[name][0])
        np.testing.assert_array_equal(dataset.null_cond[name], said[name][1])
    assert dataset.is_pixels and dataset.encoders["video"]["name"] == "pixels"


def test_a_network_that_takes_other_text_is_refused_before_compilation(
    folder: pathlib.Path,
) -> None:
    message = r"takes 'text' of shape \(8, 16\) with every clip, the data has \(9, 16\)"
    with pytest.raises(ValueError, match=message):
        build_experiment(make_config(folder, **{"model.num_text_tokens": 8}))


def test_prompts_that_are_cut_are_counted_in_the_log(
    folder: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    experiment, weights = build_experiment(make_config(folder)), str(folder / "text_encoders")
    for prompts, said in ((PROMPTS, ""), ([PROMPTS[0], PROMPTS[1] + " fast"], "1 of 2 prompts")):
        caplog.clear()
        read_requests(experiment, SampleFlags(captions=prompts, text_weights=weights), 2)
        assert (said or "prompts are longer") in caplog.text or not said
        assert bool(said) == ("longer than the text encoder's 9 tokens" in caplog.text)


def test_clips_without_captions_need_a_word_of_the_user(
    folder: pathlib.Path, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With a text encoder no caption is an error; `keep` stores the empty prompt."""
    (tmp_path / "videos").mkdir()
    for video in sorted((folder / "videos").glob("*.mp4"))[:2]:
        shutil.copy(video, tmp_path / "videos")
    encoders = str(folder / "text_encoders")
    fields = {"text_encoder": "t5_clip", "text_weights": encoders, "text_tokens": NUM_TOKENS}
    spec = make_spec(tmp_path / "videos", **fields)
    with pytest.raises(ValueError, match=r"captions: 0 of 2 videos; prepare\.text_encoder"):
        prepare(spec, tmp_path / "refused", make_clip_encoder(spec))
    assert not (tmp_path / "refused").exists()
    spec = make_spec(tmp_path / "videos", missing_captions="keep", **fields)
    prepare(spec, tmp_path / "kept", make_clip_encoder(spec))
    assert "captions: 0 of 2 clips" in caplog.text
    dataset = VideoRecordsSpec(folder=str(tmp_path / "kept"))
    for name, array in dataset.null_cond.items():
        np.testing.assert_array_equal(dataset.clip("train", 0, 0)[name], array)


def test_the_vanilla_arm_trains_for_the_flops_of_the_pyramid(folder: pathlib.Path) -> None:
    config_file = "configs/captioned_digits.py"
    base = {name: str(value) for name, value in OVERRIDES.items()}
    base |= {"data.folder": str(folder / "clips"), "train.num_steps": "100"}
    runs = {}
    for arm in ("pyramid", "vanilla"):
        config = read_config(config_file, arm_overrides(config_file, base, arm))
        runs[arm] = build_experiment(config)
    assert [run.pyramid.num_stages for run in runs.values()] == [2, 1]
    spent = {arm: run.train.num_steps * mean_step_flops(run) for arm, run in runs.items()}
    assert runs["pyramid"].train.num_steps == 100 > runs["vanilla"].train.num_steps
    assert abs(spent["pyramid"] - spent["vanilla"]) <= 0.5 * mean_step_flops(runs["vanilla"])


def test_an_unknown_arm_is_refused_before_anything_is_made(tmp_path: pathlib.Path) -> None:
    assert main([f"--out={tmp_path / 'out'}", "--arms=other"]) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_from_captions_to_videos_of_prompts(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    workdir, encoders = tmp_path / "run", str(folder / "text_encoders")
    train(build_experiment(make_config(folder)), workdir)
    assert json.loads((workdir / "results.json").read_text())["counts"]["steps"] == 2
    shown = sorted(path.name for path in (workdir / "samples").iterdir())
    assert shown[0].startswith("0000_the_digit_") and shown[-1] == "grid.gif"

    run = open_run(workdir)
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS) + "\n\n")
    flags = SampleFlags(
        prompts=str(tmp_path / "prompts.txt"), videos_per_prompt=2, text_weights=encoders,
        naming="vbench", negative_prompt="the digit 1",
    )  # fmt: skip
    sample_run(run, flags, tmp_path / "vbench")
    names = {path.name for path in (tmp_path / "vbench").iterdir()}
    assert names == {f"{prompt}-{i}.mp4" for prompt in PROMPTS for i in range(2)}

    with pytest.raises(ValueError, match="--text_weights must be the folder"):
        sample_run(run, SampleFlags(captions=PROMPTS), None)
    write_text_encoders(tmp_path / "others", PROMPTS, width=16, seed=1)
    with pytest.raises(ValueError, match="does not hold the 't5_clip' that encoded the captions"):
        sample_run(run, SampleFlags(captions=PROMPTS, text_weights=str(tmp_path / "others")), None)
    with pytest.raises(ValueError, match="--labels"):
        sample_run(run, SampleFlags(labels=["3"]), None)


def test_training_machines_need_neither_torch_nor_transformers() -> None:
    """Neither is there to be imported; TensorBoard's writer would take torch where it is."""
    command = [sys.executable, "-c", WITHOUT_TORCH]
    result = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
