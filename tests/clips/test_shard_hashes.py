"""A shard that is another file than the manifest names is an error, not a batch of other clips."""

import json
import os
import pathlib
import shutil
import time
from typing import Any

import numpy as np
import pytest

from tpdiff_jax.clips import shard_hashes
from tpdiff_jax.clips.clip_records import ClipRecord
from tpdiff_jax.clips.record_manifest import SCHEMA, to_json
from tpdiff_jax.clips.shard_hashes import VERIFIED_FILE, ShardHashes
from tpdiff_jax.data import make_iterator
from tpdiff_jax.data.video_records import VideoRecordsSpec
from tpdiff_jax.files.durable import sha256_of_file
from tpdiff_jax.preparation import shard_writer
from tpdiff_jax.preparation.shard_plan import ShardJob

TRAIN = [f"train-{i:05d}-of-00003.array_record" for i in range(3)]
TEST = "test-00000-of-00001.array_record"
CLIPS = 3


def write_shard(folder: pathlib.Path, name: str, split: str, first: int) -> dict[str, Any]:
    shard = shard_writer._OpenShard(folder / name)
    for i in range(first, first + CLIPS):
        video = np.full((2, 4, 4, 3), i, np.uint8)
        shard.add(ClipRecord(f"{i:03d}.mp4", "", {"video": video}), 0)
    shard.close()
    return shard.publish(ShardJob(name, split, ()), ())


def write_folder_of_clips(folder: pathlib.Path, first: int = 0) -> pathlib.Path:
    folder.mkdir()
    notes = [write_shard(folder, n, "train", first + CLIPS * i) for i, n in enumerate(TRAIN)]
    notes.append(write_shard(folder, TEST, "test", first + 100))
    fields = {
        "schema": SCHEMA,
        "fps": 8.0,
        "encoder": {"video": {"name": "pixels"}, "text": {"name": "none"}},
        "arrays": {"video": {"dtype": "uint8", "shape": [2, 4, 4, 3]}},
        "shards": [
            {k: n[k] for k in ("name", "split", "num_clips", "num_bytes", "sha256")} for n in notes
        ],
    }
    (folder / "manifest.json").write_bytes(to_json(fields))
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = write_folder_of_clips(tmp_path_factory.mktemp("data") / "clips")
    sizes = {(folder / name).stat().st_size for name in (*TRAIN, TEST)}
    assert len(sizes) == 1, "else the sizes of the manifest would tell"
    return folder


@pytest.fixture
def folder(prepared: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    return shutil.copytree(prepared, tmp_path / "clips")


def exchange(a: pathlib.Path, b: pathlib.Path) -> None:
    spare = a.with_name("spare")
    a.rename(spare)
    b.rename(a)
    spare.rename(b)


def read_epoch(folder: pathlib.Path, max_bad_share: float = 0.0) -> list[str]:
    dataset = VideoRecordsSpec(folder=str(folder), max_bad_share=max_bad_share)
    return sorted(dataset.clip("train", 0, i)["name"] for i in range(3 * CLIPS))


ALL = [f"{i:03d}.mp4" for i in range(3 * CLIPS)]


def test_the_shards_that_the_manifest_names_are_read_and_remembered(folder: pathlib.Path) -> None:
    assert read_epoch(folder) == ALL
    notes = [json.loads(line) for line in (folder / VERIFIED_FILE).read_text().splitlines()]
    expected = {name: sha256_of_file(folder / name) for name in (*TRAIN, TEST)}
    assert {note["name"]: note["sha256"] for note in notes} == expected


SWAPS = {
    "two training shards exchanged": lambda f: exchange(f / TRAIN[0], f / TRAIN[1]),
    "a test shard in place of a training one": lambda f: shutil.copy(f / TEST, f / TRAIN[2]),
    "training and test exchanged": lambda f: exchange(f / TRAIN[1], f / TEST),
    "one copied over another": lambda f: shutil.copy(f / TRAIN[0], f / TRAIN[1]),
    "one linked to another": lambda f: (
        (f / TRAIN[0]).unlink(),
        os.link(f / TRAIN[2], f / TRAIN[0]),
    ),
}


@pytest.mark.parametrize("kind", SWAPS)
@pytest.mark.parametrize("is_known", [False, True])
def test_another_shard_of_the_same_size_is_a_clear_error(
    kind: str, is_known: bool, folder: pathlib.Path
) -> None:
    if is_known:  # hashed before: its times tell that it is to be hashed again
        ShardHashes(folder, VideoRecordsSpec(folder=str(folder)).manifest.shards).check()
    SWAPS[kind](folder)
    dataset = VideoRecordsSpec(folder=str(folder), max_bad_share=1.0)
    stream = make_iterator(dataset, "train", 0, lambda step: [2 * step, 2 * step + 1])
    with pytest.raises(ValueError, match=r"is not the shard that the manifest names: it holds t"):
        next(stream)
    with pytest.raises(ValueError, match=r"data\.folder: .*Put the right file back"):
        dataset.clip("train", 0, 0)


@pytest.mark.parametrize("name", [TRAIN[1], TEST])
def test_a_shard_of_another_preparation_is_a_clear_error(
    name: str, folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    other = write_folder_of_clips(tmp_path / "other", first=50)
    shutil.copy(other / name, folder / name)
    with pytest.raises(ValueError, match=f"{name} is not the shard .* it holds 3 other clips"):
        read_epoch(folder, max_bad_share=1.0)


def test_a_damaged_record_is_still_skipped_and_counted(
    folder: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / TRAIN[1]
    content = bytearray(path.read_bytes())
    used = np.flatnonzero(np.frombuffer(bytes(content), np.uint8))
    content[used[len(used) // 2]] ^= 1
    path.write_bytes(content)
    with caplog.at_level("WARNING", logger="absl"):
        names = read_epoch(folder, max_bad_share=0.5)
    assert len(set(names)) < len(ALL) and set(names) < set(ALL)
    assert "is damaged: what cannot be read of it is skipped" in caplog.text


def test_what_was_hashed_is_not_hashed_again_until_it_changes(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = VideoRecordsSpec(folder=str(folder)).manifest.shards
    hashed: list[str] = []

    def count(path: pathlib.Path) -> str:
        hashed.append(path.name)
        return sha256_of_file(path)

    monkeypatch.setattr(shard_hashes, "sha256_of_file", count)
    ShardHashes(folder, shards).check()
    assert sorted(hashed) == sorted([*TRAIN, TEST])
    ShardHashes(folder, shards).check()
    assert len(hashed) == 4
    os.utime(folder / TRAIN[0])
    with (folder / VERIFIED_FILE).open("a") as file:
        file.write('{"name": ["half a note"\n[]\n')
    ShardHashes(folder, shards).check()
    assert hashed[4:] == [TRAIN[0]]
    (folder / VERIFIED_FILE).unlink()
    (folder / VERIFIED_FILE).mkdir()  # as a folder that cannot be written: hashed at every start
    for _ in range(2):
        ShardHashes(folder, shards).check()
    assert len(hashed) == 5 + 8


def test_a_large_data_set_is_hashed_in_the_background(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_hashes, "AT_ONCE_BYTES", 0)
    shards = VideoRecordsSpec(folder=str(folder)).manifest.shards
    ShardHashes(folder, shards).check()
    wait_for(lambda: len(shard_hashes.read_notes_of_shards(folder)) == 4)
    exchange(folder / TRAIN[0], folder / TRAIN[2])
    hashes = ShardHashes(folder, shards)

    def is_refused() -> bool:
        try:
            hashes.check()
        except ValueError as error:
            return "is not the shard" in str(error)
        return False

    wait_for(is_refused)


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


ODD: dict[str, Any] = {
    "no frame rate": lambda m: m.pop("fps"),
    "a frame rate as text": lambda m: m.update(fps="8"),
    "no frame at all": lambda m: m.update(fps=0),
    "no arrays": lambda m: m.pop("arrays"),
    "arrays as a list": lambda m: m.update(arrays=[1]),
    "a shape below zero": lambda m: m["arrays"]["video"].update(shape=[2, -4, 4, 3]),
    "a shape as text": lambda m: m["arrays"]["video"].update(shape="2x4x4x3"),
    "two axes": lambda m: m["arrays"]["video"].update(shape=[2, 4]),
    "no encoder": lambda m: m.pop("encoder"),
    "an encoder as text": lambda m: m.update(encoder="pixels"),
    "clips as text": lambda m: m["shards"][0].update(num_clips="3"),
    "clips below zero": lambda m: m["shards"][0].update(num_clips=-3),
    "more clips than bytes": lambda m: m["shards"][0].update(num_clips=10**15),
    "too many clips for a number": lambda m: m["shards"][0].update(num_clips=10**30),
    "bytes as text": lambda m: m["shards"][0].update(num_bytes="many"),
    "a name as a number": lambda m: m["shards"][0].update(name=3),
    "no hash": lambda m: m["shards"][0].pop("sha256"),
    "a shard twice": lambda m: m["shards"].append(m["shards"][0]),
    "a shard as a number": lambda m: m["shards"].append(7),
    "a schema as text": lambda m: m.update(schema="2"),
    "a bucket as text": lambda m: m.update(buckets=["8x64x64"]),
    "buckets as a number": lambda m: m.update(buckets=4),
    "a prompt as text": lambda m: m.update(null_condition="none"),
}


@pytest.mark.parametrize("kind", ODD)
def test_a_manifest_of_odd_fields_is_one_line(kind: str, folder: pathlib.Path) -> None:
    fields = json.loads((folder / "manifest.json").read_text())
    ODD[kind](fields)
    (folder / "manifest.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=r"manifest\.json") as error:
        VideoRecordsSpec(folder=str(folder))
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 70_000, "[]", "null", "1" * 9000])
def test_a_manifest_that_is_none_is_one_line(text: str, folder: pathlib.Path) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json is no manifest") as error:
        VideoRecordsSpec(folder=str(folder))
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
