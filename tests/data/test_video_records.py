"""Prepared clips as a data set: pure, complete every epoch, and deterministic around damage."""

import json
import os
import pathlib
import pickle
import resource
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.preparation.video_files import read_index, write_video
from tests.test_prepare import make_spec
from tpdiff_jax.clips.bad_clips import TooManyBadClipsError
from tpdiff_jax.command_line import ExitCode
from tpdiff_jax.data import VideoRecordsSpec, make_iterator, stack_clips
from tpdiff_jax.files.open_files import OpenFilesError
from tpdiff_jax.main import exit_code
from tpdiff_jax.prepare import prepare

NUM_TRAIN, NUM_TEST = 11, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    videos = tmp_path_factory.mktemp("videos")
    rows = ["video,split"]
    for i in range(NUM_TRAIN + NUM_TEST):
        write_video(videos / f"{i:02d}.mp4", 40)
        rows.append(f"{i:02d}.mp4,{'train' if i < NUM_TRAIN else 'test'}")
    (videos / "table.csv").write_text("\n".join(rows))
    out = tmp_path_factory.mktemp("prepared")
    prepare(make_spec(videos, table=str(videos / "table.csv"), videos_per_shard=4), out)
    return out


def copy_of(folder: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def flip_a_bit(path: pathlib.Path) -> None:
    """Flip one bit in the middle of what is no padding."""
    content = bytearray(path.read_bytes())
    used = np.flatnonzero(np.frombuffer(bytes(content), np.uint8))
    content[used[len(used) // 2]] ^= 1
    path.write_bytes(content)


def names(dataset: VideoRecordsSpec, count: int, start: int = 0, **kwargs: Any) -> list[str]:
    arguments = {"split": "train", "seed": 0} | kwargs
    return [dataset.clip(**arguments, index=start + i)["name"] for i in range(count)]


def test_every_epoch_shows_every_clip_once_in_its_own_order(folder: pathlib.Path) -> None:
    dataset = VideoRecordsSpec(folder=str(folder))
    epochs = [names(dataset, NUM_TRAIN, start=epoch * NUM_TRAIN) for epoch in range(3)]
    assert all(sorted(epoch) == [f"{i:02d}.mp4" for i in range(NUM_TRAIN)] for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert names(dataset, NUM_TRAIN, seed=1) != epochs[0]
    held_out = names(dataset, NUM_TEST, split="test")
    assert sorted(held_out) == [f"{i:02d}.mp4" for i in range(NUM_TRAIN, NUM_TRAIN + NUM_TEST)]


def test_a_clip_is_a_pure_function_of_seed_and_index(folder: pathlib.Path) -> None:
    dataset = VideoRecordsSpec(folder=str(folder), horizontal_flip=True)
    other = pickle.loads(pickle.dumps(dataset))  # as a worker process receives it
    for index in (0, 5, 10**12):
        a, b = dataset.clip("train", 3, index), other.clip("train", 3, index)
        np.testing.assert_array_equal(a["video"], b["video"])
        assert a["name"] == b["name"]
    assert a["video"].dtype == np.float32 and a["video"].shape == (8, 32, 48, 3)
    assert a["video"].min() >= -1 and a["video"].max() <= 1 and a["label"].shape == (0,)


def test_a_flip_mirrors_about_half_of_the_training_clips_and_no_test_clip(
    folder: pathlib.Path,
) -> None:
    plain = VideoRecordsSpec(folder=str(folder))
    flipped = VideoRecordsSpec(folder=str(folder), horizontal_flip=True)
    mirrored = 0
    for index in range(60):
        a, b = plain.clip("train", 0, index)["video"], flipped.clip("train", 0, index)["video"]
        is_mirrored = not np.array_equal(a, b)
        mirrored += is_mirrored
        np.testing.assert_array_equal(a[:, :, ::-1] if is_mirrored else a, b)
    assert 18 <= mirrored <= 42  # 30 +- 3 standard deviations
    for index in range(NUM_TEST):
        a, b = plain.clip("test", 0, index)["video"], flipped.clip("test", 0, index)["video"]
        np.testing.assert_array_equal(a, b)
    assert plain.fingerprint() != flipped.fingerprint()


@pytest.mark.parametrize("threads", [0, 3])
def test_batches_do_not_depend_on_hosts_or_threads(folder: pathlib.Path, threads: int) -> None:
    dataset = VideoRecordsSpec(folder=str(folder))

    def read(rows: range) -> list[dict]:
        stream = make_iterator(
            dataset,
            "train",
            seed=2,
            clips_of_step=lambda step: [6 * step + row for row in rows],
            num_threads=threads,
        )
        return [next(stream) for _ in range(4)]

    whole, left, right = read(range(6)), read(range(3)), read(range(3, 6))
    for a, b, c in zip(whole, left, right, strict=True):
        np.testing.assert_array_equal(a["video"], np.concatenate([b["video"], c["video"]]))
        assert a["cond"]["label"].shape == (6, 0)
    expected = stack_clips(dataset, "train", 2, 6, start=12)["video"]
    np.testing.assert_array_equal(whole[2]["video"], expected)


def test_a_damaged_record_is_replaced_by_the_next_of_the_epochs_order(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    damaged = copy_of(folder, tmp_path / "damaged")
    intact = VideoRecordsSpec(folder=str(folder))
    flip_a_bit(damaged / "train-00001-of-00003.array_record")
    dataset = VideoRecordsSpec(folder=str(damaged), max_bad_share=0.5)
    before, after = names(intact, NUM_TRAIN), names(dataset, NUM_TRAIN)
    changed = [i for i in range(NUM_TRAIN) if before[i] != after[i]]
    assert len(changed) == 1
    assert after[changed[0]] == before[(changed[0] + 1) % NUM_TRAIN]
    again = VideoRecordsSpec(folder=str(damaged), max_bad_share=0.5)
    assert names(again, NUM_TRAIN)[::-1] == [
        again.clip("train", 0, i)["name"] for i in reversed(range(NUM_TRAIN))
    ], "whatever the order of asking"


def test_too_many_damaged_records_stop_the_run(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    damaged = copy_of(folder, tmp_path / "damaged")
    flip_a_bit(damaged / "train-00000-of-00003.array_record")
    flip_a_bit(damaged / "train-00001-of-00003.array_record")
    dataset = VideoRecordsSpec(folder=str(damaged), max_bad_share=0.1)
    with pytest.raises(TooManyBadClipsError, match=r"2 of 11 records .* data\.max_bad_share=0\.1"):
        names(dataset, NUM_TRAIN)


def test_the_shown_frames_are_those_of_the_named_video(folder: pathlib.Path) -> None:
    clip = VideoRecordsSpec(folder=str(folder)).clip("train", 0, 0)
    frames = np.rint(127.5 * (clip["video"] + 1))
    assert [read_index(frame) for frame in frames] == [6, 10, 14, 18, 21, 25, 29, 33]


def test_wrong_arguments_are_named(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    dataset = VideoRecordsSpec(folder=str(folder))
    with pytest.raises(ValueError, match="split is 'dev'"):
        dataset.clip("dev", 0, 0)
    with pytest.raises(ValueError, match="seed and index"):
        dataset.clip("train", 0, -1)
    with pytest.raises(ValueError, match=r"data\.max_bad_share"):
        VideoRecordsSpec(folder=str(folder), max_bad_share=2.0)
    with pytest.raises(ValueError, match=r"data\.folder"):
        VideoRecordsSpec(folder=str(tmp_path))
    with pytest.raises(ValueError, match="--caption"):
        dataset.captions_to_labels(["a cat"])
    cut = copy_of(folder, tmp_path / "cut")
    shard = cut / "train-00000-of-00003.array_record"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match="the manifest says"):
        VideoRecordsSpec(folder=str(cut))


def shards_in_pieces(folder: pathlib.Path, target: pathlib.Path, number: int) -> pathlib.Path:
    """A folder whose training shards are `number` copies of one."""
    copy_of(folder, target)
    manifest = json.loads((target / "manifest.json").read_text())
    first = next(shard for shard in manifest["shards"] if shard["split"] == "train")
    names = [f"copy-{i:03d}.array_record" for i in range(number)]
    for name in names:
        (target / name).write_bytes((target / first["name"]).read_bytes())
    manifest["shards"] = [{**first, "name": name} for name in names]
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target


@pytest.fixture
def few_open_files() -> Iterator[int]:
    """A limit that leaves room for 20 files more than are open now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = {int(name) for name in os.listdir("/proc/self/fd")}
    limit = [number for number in range(len(taken) + 20) if number not in taken][19] + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_shards_than_files_may_be_open_are_read_where_the_system_allows(
    folder: pathlib.Path, tmp_path: pathlib.Path, few_open_files: int
) -> None:
    many = shards_in_pieces(folder, tmp_path / "many", 40)
    dataset = VideoRecordsSpec(folder=str(many), max_bad_share=0.0)
    assert len(names(dataset, dataset.num_clips("train"))) == 4 * 40


def test_the_limit_of_open_files_is_no_damage(
    folder: pathlib.Path,
    tmp_path: pathlib.Path,
    few_open_files: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tpdiff_jax.data.video_records.allow_many_open_files", lambda: None)
    many = shards_in_pieces(folder, tmp_path / "many", 40)
    dataset = VideoRecordsSpec(folder=str(many), max_bad_share=1.0)
    told = rf"has 40 shards.*prepare\.videos_per_shard.* {few_open_files} \(ulimit -n\)"
    with pytest.raises(OpenFilesError, match=told) as error:
        names(dataset, dataset.num_clips("train"))
    assert exit_code(error.value) == ExitCode.BAD_INPUT
