"""Several captions of a clip: stored with their embeddings, one drawn a step, nothing lost."""

import collections
import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest

from tests.preparation.video_files import write_video
from tests.test_prepare import contents, encode_text, make_spec
from tpdiff_jax.clips.bad_clips import TooManyBadClipsError
from tpdiff_jax.clips.clip_records import ClipRecord, record_from_bytes, record_to_bytes
from tpdiff_jax.clips.several_captions import facts_of_one, stack_captions
from tpdiff_jax.data.buckets import bucket_folders
from tpdiff_jax.data.pipeline import make_iterator
from tpdiff_jax.data.stored_clips import ClipNumber, draw_caption
from tpdiff_jax.data.video_records import VideoRecordsSpec
from tpdiff_jax.preparation.clip_encoder import ClipEncoder
from tpdiff_jax.prepare import prepare

CAPTIONS = {
    "0.mp4": ["a", "bb", "ccc"],
    "1.mp4": ["dddd"],
    "2.mp4": ["eeeee", "f" * 6],
    "3.mp4": [],
}
NUM_TOKENS = 4  # of `encode_text`, which stores a caption's length


def encode_clip(frames: np.ndarray, caption: str) -> dict[str, np.ndarray]:
    return {"video": frames, **encode_text(caption)}


def is_cut(caption: str) -> bool:
    return len(caption) > NUM_TOKENS


ENCODER = ClipEncoder(
    {"video": {"name": "pixels"}, "text": {"name": "test"}},
    encode_clip,
    lambda: encode_text(""),
    encode_text,
    is_cut,
)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("videos")
    for name in CAPTIONS:
        write_video(folder / name, 40)
    lines = [json.dumps({"video": n, "caption": c}) for n, c in CAPTIONS.items()]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def clips(videos: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("clips")
    prepare(make_spec(videos, captions_per_video=3), folder, ENCODER)
    return folder


def test_each_step_draws_a_caption_and_its_embedding_by_seed_and_step(clips: pathlib.Path) -> None:
    dataset = VideoRecordsSpec(folder=str(clips))
    assert dataset.cond_shapes["text"] == ((4, 6), np.float16)
    assert dataset.null_cond["text"].shape == (4, 6)
    drawn: dict[str, collections.Counter[str]] = {name: collections.Counter() for name in CAPTIONS}
    for index in range(4 * 150):
        clip = dataset.clip("train", 0, index)
        drawn[clip["name"]][clip["caption"]] += 1
        np.testing.assert_array_equal(clip["text"], encode_text(clip["caption"])["text"])
        np.testing.assert_array_equal(clip["text_mask"], encode_text(clip["caption"])["text_mask"])
    for name, captions in CAPTIONS.items():
        assert set(drawn[name]) == set(captions or [""])
        counts = np.asarray(list(drawn[name].values()))
        # 150 draws, each caption with probability 1/n: within five standard deviations.
        n = max(len(captions), 1)
        assert np.all(np.abs(counts - 150 / n) <= 5 * np.sqrt(150 * (1 / n) * (1 - 1 / n)))


def test_the_draw_is_a_pure_function_and_depends_on_the_seed(clips: pathlib.Path) -> None:
    def texts(seed: int) -> list[str]:
        dataset = VideoRecordsSpec(folder=str(clips))
        return [dataset.clip("train", seed, index)["caption"] for index in range(60)]

    assert texts(0) == texts(0) != texts(1)
    dataset = VideoRecordsSpec(folder=str(clips))
    whole = make_iterator(dataset, "train", 0, lambda t: range(4 * t, 4 * t + 4))
    hosts = [
        make_iterator(dataset, "train", 0, lambda t, h=h: range(4 * t + 2 * h, 4 * t + 2 * h + 2))
        for h in range(2)
    ]
    late = make_iterator(dataset, "train", 0, lambda t: range(4 * t, 4 * t + 4), start_step=3)
    for step in range(5):
        batch, parts = next(whole)["cond"]["text"], [next(host)["cond"]["text"] for host in hosts]
        np.testing.assert_array_equal(batch, np.concatenate(parts))
        if step >= 3:
            np.testing.assert_array_equal(batch, next(late)["cond"]["text"])


def test_mirroring_and_captions_are_drawn_apart(clips: pathlib.Path) -> None:
    plain = VideoRecordsSpec(folder=str(clips))
    flipped = VideoRecordsSpec(folder=str(clips), horizontal_flip=True)
    for index in range(40):
        assert (
            plain.clip("train", 0, index)["caption"] == flipped.clip("train", 0, index)["caption"]
        )


def test_held_out_clips_always_show_their_first_caption() -> None:
    """Evaluations compare with the same captions whenever they are made."""
    assert {draw_caption(ClipNumber("test", 3, i), 5) for i in range(50)} == {0}
    assert {draw_caption(ClipNumber("train", 3, i), 5) for i in range(50)} == set(range(5))
    assert {draw_caption(ClipNumber("train", 3, i), 1) for i in range(50)} == {0}


def test_one_caption_a_video_is_stored_as_before(
    videos: pathlib.Path, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="absl"):
        manifest = prepare(make_spec(videos), tmp_path, ENCODER)
    assert manifest is not None
    assert manifest.fields["arrays"]["text"]["shape"] == [4, 6]
    assert manifest.fields["counts"]["captions"] == 3
    assert manifest.fields["counts"]["captions_cut"] == 1, "eeeee has more than 4 tokens"
    assert "captions: 3 of 4 clips" in caplog.text
    assert "1 captions are longer than the text encoder's tokens" in caplog.text
    assert "3 further captions are left out" in caplog.text
    assert "no clip is held out" in caplog.text
    assert VideoRecordsSpec(folder=str(tmp_path)).captions == "3 of 4 clips"


def test_every_cut_caption_of_a_clip_counts(clips: pathlib.Path) -> None:
    counts = json.loads((clips / "manifest.json").read_text())["counts"]
    assert (counts["clips"], counts["captions"], counts["captions_cut"]) == (4, 3, 2)


def test_captions_are_counted_over_all_buckets(
    videos: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    spec = make_spec(videos, buckets=("8x32x48", "4x32x32"), captions_per_video=2)
    manifest = prepare(spec, tmp_path, ENCODER)
    assert manifest is not None
    assert manifest.fields["counts"]["captions"] == 3 and manifest.fields["counts"]["clips"] == 4
    assert bucket_folders(str(tmp_path))


def test_two_hosts_store_the_same_captions(
    videos: pathlib.Path, clips: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for host in range(2):
        spec = make_spec(videos, captions_per_video=3, host_index=host, host_count=2)
        prepare(spec, tmp_path, ENCODER)
    assert contents(tmp_path) == contents(clips)


def test_records_keep_further_captions_and_without_them_their_bytes() -> None:
    arrays = {"video": np.zeros((1, 2, 2, 3), np.uint8)}
    one = record_to_bytes(ClipRecord("n", "a", arrays))
    assert b"other_captions" not in one and record_from_bytes(one).captions == ("a",)
    several = record_from_bytes(record_to_bytes(ClipRecord("n", "a", arrays, ("b", "c"))))
    assert several.captions == ("a", "b", "c")


def test_more_captions_than_there_is_room_for_are_refused() -> None:
    text = {"text": np.ones((2, 3), np.float16)}
    with pytest.raises(ValueError, match="3 captions of a clip; allowed: 1 to 2"):
        stack_captions([text] * 3, 2)
    np.testing.assert_array_equal(stack_captions([text], 2)["text"][1], np.zeros((2, 3)))
    facts = {"video": {"shape": [8, 32, 48, 3]}, "text": {"shape": [3, 4, 6]}}
    assert facts_of_one(facts, 3)["text"]["shape"] == [4, 6]
    with pytest.raises(ValueError, match="need 2 captions in front"):
        facts_of_one(facts, 2)


def test_a_record_of_more_captions_than_the_manifest_says_is_a_damaged_one(
    clips: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    shutil.copytree(clips, tmp_path / "forged")
    path = tmp_path / "forged" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["settings"]["captions_per_video"] = 1
    path.write_text(json.dumps(manifest))
    dataset = VideoRecordsSpec(folder=str(tmp_path / "forged"))
    with pytest.raises(TooManyBadClipsError, match="has [23] captions"):
        for index in range(4):
            dataset.clip("train", 0, index)


SMALL: dict[str, Any] = {"max_bad_share": 0.01}


@pytest.mark.parametrize(
    ("num_good", "num_bad", "stops"),
    [(29, 1, False), (28, 2, False), (27, 3, True), (1, 1, False), (1, 2, True), (3, 0, False)],
)
def test_a_few_bad_rows_never_stop_a_small_set_and_are_named(
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
    num_good: int,
    num_bad: int,
    stops: bool,
) -> None:
    """1 % of 30 is less than one: `prepare.bad_allowed`, 2, unless they are more than half."""
    source = tmp_path / "videos"
    source.mkdir()
    video = write_video(source / "0.mp4", 12)
    for i in range(1, num_good):
        (source / f"{i}.mp4").write_bytes(video.read_bytes())
    rows = [f"{i}.mp4,clip {i}" for i in range(num_good)]
    rows += [f"gone{i}.mp4,clip" for i in range(num_bad)]
    (source / "metadata.csv").write_text("video,caption\n" + "\n".join(rows) + "\n")
    spec = make_spec(source, num_frames=3, height=8, width=8, **SMALL)
    if stops:
        with pytest.raises(
            TooManyBadClipsError, match=r"the first: 'gone0.mp4' missing_file: line"
        ):
            prepare(spec, tmp_path / "out")
        return
    manifest = prepare(spec, tmp_path / "out")
    assert manifest is not None and manifest.fields["counts"]["clips"] == num_good
    for i in range(num_bad):
        assert f"row left out: 'gone{i}.mp4' missing_file: line {num_good + 2 + i}" in caplog.text


def test_a_bad_video_of_thirty_does_not_stop_and_is_named(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "videos"
    source.mkdir()
    video = write_video(source / "00.mp4", 12)
    for i in range(1, 30):
        (source / f"{i:02d}.mp4").write_bytes(video.read_bytes() if i != 7 else b"")
    spec = make_spec(source, num_frames=3, height=8, width=8, **SMALL)
    manifest = prepare(spec, tmp_path / "out")
    assert manifest is not None and manifest.fields["counts"]["clips"] == 29
    assert "video left out: '07.mp4' empty_file" in caplog.text
    with pytest.raises(TooManyBadClipsError):
        prepare(make_spec(source, num_frames=3, height=8, width=8, bad_allowed=0, **SMALL),
                tmp_path / "strict")  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("missing_captions", "maybe"),
        ("captions_per_video", 0),
        ("bad_allowed", -1),
        ("also_allowed", "/data"),
    ],
)
def test_a_wrong_field_of_tables_is_named(tmp_path: pathlib.Path, field: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"{field}"):
        make_spec(tmp_path, **{field: value})
