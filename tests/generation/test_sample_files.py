"""Names of generated videos, and what becomes of latents."""

import pathlib
from types import SimpleNamespace

import numpy as np
import pytest

from tpdiff_jax.checks import counted
from tpdiff_jax.encoders import hash_folders
from tpdiff_jax.files import media
from tpdiff_jax.generation.prompts import SampleFlags, read_prompts
from tpdiff_jax.generation.requested_videos import RequestedVideos
from tpdiff_jax.generation.sample_files import SampleWriter, file_words, open_decoder, vbench_name

VIDEOS = np.zeros((3, 2, 16, 16, 3), np.float32)


def names_in(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_videos_are_numbered_through_whatever_the_batches(tmp_path: pathlib.Path) -> None:
    writer = SampleWriter(tmp_path, 8.0, lambda videos: videos)
    writer.write(VIDEOS[:2], ["label 3-7", "A cat, running!"])
    writer.write(VIDEOS[2:], ["../up"])
    writer.finish()
    assert names_in(tmp_path) == [
        "0000_label_3-7.mp4", "0001_a_cat_running.mp4", "0002_up.mp4", "grid.gif"
    ]  # fmt: skip


@pytest.mark.parametrize(("number", "told"), [(1, "wrote 1 video to"), (3, "wrote 3 videos to")])
def test_one_video_is_not_many(
    number: int, told: str, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = SampleWriter(tmp_path, 8.0, None)
    with caplog.at_level("INFO", logger="absl"):
        writer.write(VIDEOS[:number], [])
        writer.finish()
    assert told in caplog.text
    assert [counted(n, "prompt") for n in (0, 1, 2)] == ["0 prompts", "1 prompt", "2 prompts"]


def test_videos_without_a_caption_come_between_others_whatever_the_batches(
    tmp_path: pathlib.Path,
) -> None:
    captions = ["", "a cat", ""]
    asked = RequestedVideos(captions, 1, lambda start: VIDEOS[start : start + 1])
    writer = SampleWriter(tmp_path, 8.0, lambda videos: videos)
    for videos, shown in asked.batches():
        writer.write(videos, shown)
    writer.finish()
    assert names_in(tmp_path) == ["0000.mp4", "0001_a_cat.mp4", "0002.mp4", "grid.gif"]
    whole = media.gif_grid(media.to_uint8(VIDEOS), captions=captions, fps=8.0)
    assert (tmp_path / "grid.gif").read_bytes() == whole


def test_a_grid_without_any_caption_has_no_room_for_them(tmp_path: pathlib.Path) -> None:
    for name, captions in (("none", []), ("empty", ["", "", ""])):
        writer = SampleWriter(tmp_path / name, 8.0, lambda videos: videos)
        writer.write(VIDEOS, captions)
        writer.finish()
    grids = [(tmp_path / name / "grid.gif").read_bytes() for name in ("none", "empty")]
    assert grids[0] == grids[1] == media.gif_grid(media.to_uint8(VIDEOS), fps=8.0)


def test_vbench_names_are_the_prompt_and_its_video_s_number(tmp_path: pathlib.Path) -> None:
    writer = SampleWriter(tmp_path, 8.0, lambda videos: videos, naming="vbench")
    writer.write(VIDEOS[:2], ["A cat's nap.", "A cat's nap."])
    writer.write(VIDEOS[2:], ["a dog"])
    writer.finish()  # no grid: VBench would score it as a video
    assert names_in(tmp_path) == ["A cat's nap.-0.mp4", "A cat's nap.-1.mp4", "a dog-0.mp4"]


@pytest.mark.parametrize("prompt", ["", "a/b", "x" * 250])
def test_prompts_that_name_no_file_are_refused(prompt: str) -> None:
    with pytest.raises(ValueError, match="--naming=vbench"):
        vbench_name(prompt, 0)


def test_latents_without_a_decoder_are_stored_as_they_are(tmp_path: pathlib.Path) -> None:
    writer = SampleWriter(tmp_path, 24.0, None)
    latents = np.random.default_rng(0).standard_normal((2, 3, 4, 4, 16)).astype(np.float32)
    assert writer.write(latents, []) is None
    writer.finish()
    assert names_in(tmp_path) == ["0000.npy", "0001.npy"]
    stored = np.load(tmp_path / "0001.npy", allow_pickle=False)
    np.testing.assert_array_equal(stored, latents[1])


def test_words_of_a_file_name_are_few_and_plain() -> None:
    assert file_words("Ünïcode / slash\n" + "word " * 50).isascii()
    assert len(file_words("word " * 50)) <= 60


def test_a_file_of_prompts_is_read_line_by_line(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("a cat\n\n  a dog \n")
    assert read_prompts(str(path)) == ["a cat", "a dog"]
    path.write_bytes(b"\n \n")
    with pytest.raises(ValueError, match="holds no prompt"):
        read_prompts(str(path))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_prompts(str(path))
    with pytest.raises(ValueError, match="must be a file"):
        read_prompts(str(tmp_path / "none"))


def test_one_source_of_requests_at_a_time() -> None:
    with pytest.raises(ValueError, match="--caption or --prompts, not both"):
        SampleFlags(captions=["a"], prompts="file")
    with pytest.raises(ValueError, match="--naming"):
        SampleFlags(naming="other")


def test_weights_that_decode_nothing_are_refused() -> None:
    pixels = SimpleNamespace(encoders={"video": {"name": "pixels"}})
    assert open_decoder(pixels, "") is not None
    with pytest.raises(ValueError, match=r"^sample\.video_weights='vae' must be '': clips are pix"):
        open_decoder(pixels, "vae")


def test_weights_that_decode_other_latents_are_refused_before_anything_is_made(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "config.json").write_text("{}")
    facts: dict[str, str] = {"name": "image_vae", "weights_sha256": hash_folders(tmp_path)}
    latents = SimpleNamespace(encoders={"video": facts})
    assert open_decoder(latents, "") is None
    assert open_decoder(latents, str(tmp_path)) is not None, "opened when it is first used"
    with pytest.raises(ValueError, match=r"sample\.video_weights='no' must be the folder of the"):
        open_decoder(latents, "no")
    (tmp_path / "config.json").write_text("{ }")
    with pytest.raises(ValueError, match="does not hold the 'image_vae' that encoded the clips"):
        open_decoder(latents, str(tmp_path))
    facts.pop("weights_sha256")
    with pytest.raises(ValueError, match="the data do not say what encoded them"):
        open_decoder(latents, str(tmp_path))
