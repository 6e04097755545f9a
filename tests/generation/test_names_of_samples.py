"""What cannot be the name of a file is refused before anything is sampled."""

import os
import pathlib
from types import SimpleNamespace

import numpy as np
import pytest

from tpdiff_jax import sample
from tpdiff_jax.data.requests import Requests
from tpdiff_jax.generation import requested_videos
from tpdiff_jax.generation.prompts import SampleFlags
from tpdiff_jax.generation.sample_files import SampleNames, check_names

# "-0.mp4" are six bytes; file systems here take names of 255.
LONGEST = ["x" * 249, "é" * 124, "猫" * 83, "🐈" * 62]
TOO_LONG = ["x" * 250, "é" * 125, "猫" * 84, "🐈" * 63, "x" * 245 + "éé¨", "y" * 4000]


@pytest.mark.parametrize("prompt", LONGEST)
def test_the_longest_names_that_fit_are_taken(prompt: str, tmp_path: pathlib.Path) -> None:
    check_names(tmp_path, [prompt], "vbench")
    (tmp_path / f"{SampleNames('vbench').next(prompt)}.mp4").write_bytes(b"")


@pytest.mark.parametrize("prompt", TOO_LONG)
def test_names_are_counted_in_bytes(prompt: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="--naming=vbench: no file can be named.*allowed: 255"):
        check_names(tmp_path, ["a cat", prompt], "vbench")
    check_names(tmp_path, ["a cat", prompt], "numbers")  # cuts captions


def test_the_tenth_video_of_a_prompt_has_a_longer_name(tmp_path: pathlib.Path) -> None:
    check_names(tmp_path, ["x" * 249] * 10, "vbench")
    with pytest.raises(ValueError, match="256 bytes"):
        check_names(tmp_path, ["x" * 249] * 11, "vbench")


@pytest.mark.parametrize("prompt", ["", "  ", "a/b", "a\\b", "a\0b", "a\nb", "a\tb", "a\udce9b"])
def test_prompts_that_are_no_names_are_refused_in_one_line(
    prompt: str, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(ValueError, match="--naming=vbench: no file can be named") as error:
        check_names(tmp_path, ["a cat", prompt], "vbench")
    assert "\n" not in str(error.value)


def test_what_the_folders_own_file_system_takes_counts(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"PC_NAME_MAX": 143, "PC_PATH_MAX": 4096}  # as an encrypted home folder has them
    monkeypatch.setattr(os, "pathconf", lambda _, name: limits[name])
    check_names(tmp_path / "new" / "folder", ["x" * 137], "vbench")
    with pytest.raises(ValueError, match="144 bytes.* allowed: 143 and 4095"):
        check_names(tmp_path / "new" / "folder", ["x" * 138], "vbench")
    deep = tmp_path.joinpath(*["d" * 100] * 41)
    with pytest.raises(ValueError, match="is too long for"):
        check_names(deep, ["a cat"], "vbench")
    with pytest.raises(ValueError, match="--naming=numbers: '0000_a_cat.mp4' is too long for"):
        check_names(deep, ["a cat"], "numbers")


def test_prompts_that_some_file_systems_take_for_one_are_named(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", logger="absl"):
        check_names(tmp_path, ["a cat", "a cat", "a dog", "a cat-0"], "vbench")
        assert not caplog.text
        check_names(tmp_path, ["A cat", "a cat"], "vbench")
        check_names(tmp_path, ["caf\u00e9", "cafe\u0301"], "vbench")
    assert caplog.text.count("differ in letters' case or accents' encoding only") == 2


@pytest.mark.parametrize("prompt", ["x" * 250, "a/b", ""])
def test_nothing_is_sampled_and_no_folder_is_made_for_a_prompt_that_names_no_file(
    prompt: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions = ["a cat", "a dog", prompt]
    requests = Requests({"label": np.zeros((3, 0), np.int32)}, captions)

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("sampling has begun")

    monkeypatch.setattr(sample, "open_decoder", lambda *_: None)
    rows = np.repeat([0, 1, 2], 2)
    monkeypatch.setattr(requested_videos, "read_requests", lambda *_, **__: (requests, rows, None))
    monkeypatch.setattr(requested_videos, "Sampler", forbidden)
    spec = SimpleNamespace(video_weights="", num_videos=6, seed=0, batch_size=2)
    experiment = SimpleNamespace(dataset=SimpleNamespace(fps=8.0), sample=spec)
    run = SimpleNamespace(
        experiment=experiment, workdir=tmp_path, step=3, params={}, num_videos=None, pyramid=None
    )
    with pytest.raises(ValueError, match="--naming=vbench"):
        sample.sample_run(run, SampleFlags(naming="vbench"), tmp_path / "out")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
