"""Folders of videos: never old and new ones side by side; as many videos as labels."""

import pathlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tpdiff_jax.data import MovingDigitsSpec
from tpdiff_jax.generation.output_folder import (
    NUMBERED,
    UNFINISHED_FILE,
    only_these_videos,
    remove_videos,
)
from tpdiff_jax.generation.prompts import SampleFlags, read_requests, words_beside_digits
from tpdiff_jax.method import SamplerSpec


class Killed(Exception):
    """Stands for a kill in the middle."""


def fill(folder: pathlib.Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


@pytest.mark.parametrize(
    "name", ["0000_label_3.mp4", "grid.gif", "notes.txt", "config.json", "checkpoints/6/manifest"]
)
def test_a_folder_with_anything_in_it_is_refused_and_left_as_it_is(
    name: str, tmp_path: pathlib.Path
) -> None:
    fill(tmp_path, name)
    with (
        pytest.raises(ValueError, match=r"--out=.* is not empty \(.*name another folder"),
        only_these_videos(tmp_path),
    ):
        pytest.fail("must not be entered")
    assert (tmp_path / name).read_text() == name and len(list(tmp_path.iterdir())) == 1


def test_hidden_files_and_those_of_the_file_system_are_no_obstacle(tmp_path: pathlib.Path) -> None:
    fill(tmp_path, ".DS_Store", "lost+found/x")
    with only_these_videos(tmp_path):
        fill(tmp_path, "0000.mp4")
    assert not (tmp_path / UNFINISHED_FILE).exists()
    with pytest.raises(ValueError, match="not empty"), only_these_videos(tmp_path):
        pass


def test_what_a_killed_command_left_is_taken_away_by_the_next(tmp_path: pathlib.Path) -> None:
    with pytest.raises(Killed), only_these_videos(tmp_path):
        fill(tmp_path, "0000_label_3.mp4", "0001_label_4.mp4", "a cat-0.mp4", "0002.npy")
        raise Killed
    with only_these_videos(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == [UNFINISHED_FILE]
        fill(tmp_path, "0000_label_5.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["0000_label_5.mp4"]


def test_what_someone_put_beside_unfinished_videos_is_not_taken_away(
    tmp_path: pathlib.Path,
) -> None:
    with pytest.raises(Killed), only_these_videos(tmp_path):
        raise Killed
    fill(tmp_path, "notes.txt")
    with pytest.raises(ValueError, match=r"notes\.txt"), only_these_videos(tmp_path):
        pass


def test_training_shows_again_without_what_it_showed_before(tmp_path: pathlib.Path) -> None:
    """A life that stored latents, or more videos, before one that decodes them."""
    fill(tmp_path, "0000.npy", "0015_label_5.mp4", "grid.gif", "mine.mp4", "step_4/0000.mp4")
    remove_videos(tmp_path, NUMBERED)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.mp4", "step_4"]


class Digits:
    """An experiment whose clips have labels."""

    dataset = MovingDigitsSpec()


def rows(flags: SampleFlags, num_videos: int = 16, **given: Any) -> list[int]:
    """The label of every video."""
    experiment: Any = Digits
    requests, rows, _ = read_requests(experiment, flags, num_videos, **given)
    return np.asarray(requests.cond["label"])[rows, 0].tolist()


def test_there_are_as_many_videos_as_labels_or_captions() -> None:
    assert rows(SampleFlags(labels=["3", "1", "4"])) == [3, 1, 4]
    assert rows(SampleFlags(labels=["7"]), 2) == [7]
    captions = ["the digit 3 moves fast to the left", "digit seven"]
    assert rows(SampleFlags(captions=captions)) == [3, 7]
    assert rows(SampleFlags(), 12) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]


def test_a_number_that_is_asked_for_repeats_or_cuts_labels_and_cutting_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    flags = SampleFlags(labels=["3", "1", "4"])
    assert rows(flags, 5, is_number_given=True) == [3, 1, 4, 3, 1]
    assert not caplog.records
    with caplog.at_level("WARNING", logger="absl"):
        assert rows(flags, 2, is_number_given=True) == [3, 1]
    assert "--num_videos=2: the last 1 requests are left out" in caplog.text


def test_words_of_a_caption_without_effect_are_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", logger="absl"):
        rows(SampleFlags(captions=["The digit 3 moves fast to the left"]))
    assert "moves fast to the left" in caplog.text
    caplog.clear()
    with caplog.at_level("WARNING", logger="absl"):
        rows(SampleFlags(captions=["the digit 3", "digit seven", "a digit 0"]))
    assert not caplog.records


@pytest.mark.parametrize(
    ("caption", "rest"),
    [
        ("the digit 3", ""),
        ("the digit 3 moves slowly to the top", "moves slowly to the top"),
        ("the digit 3 and a digit seven", ""),
        ("digit 3 spins", "spins"),
        ("A red digit 5", "a red"),
    ],
)
def test_what_a_caption_says_besides_digits(caption: str, rest: str) -> None:
    assert words_beside_digits(caption) == rest


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"videos_per_prompt": 2}, "--videos_per_prompt"),
        ({"negative_prompt": "blurred"}, "--negative_prompt"),
        ({"text_weights": "t5"}, "--text_weights"),
    ],
)
def test_flags_of_text_are_refused_by_a_run_of_labels(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"{named}: the run was trained on labels"):
        rows(SampleFlags(labels=["3"], **fields))


@pytest.mark.parametrize(
    ("fields", "scales", "told"),
    [
        ({"negative_prompt": "dark"}, (1.0, 1.0), "--negative_prompt: guidance_scale is 1, and"),
        ({"text_weights": "t5"}, (4.0, 4.0), "--text_weights needs --caption, --prompts or --neg"),
    ],
)
def test_flags_that_a_run_of_text_would_not_read_are_refused(
    fields: dict[str, Any], scales: tuple[float, ...], told: str
) -> None:
    dataset = SimpleNamespace(num_digits=0, null_cond={"text": np.zeros(3)})
    sampler = SamplerSpec(steps_per_stage=(1, 1), guidance_scale=scales)
    experiment: Any = SimpleNamespace(dataset=dataset, sampler=sampler)
    with pytest.raises(ValueError, match=f"^{told}"):
        read_requests(experiment, SampleFlags(**fields), 4)
