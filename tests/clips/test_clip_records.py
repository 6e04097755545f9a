"""A clip survives its bytes exactly; damaged bytes are refused; the manifest names its shards."""

import json
import struct

import numpy as np
import pytest

from tpdiff_jax.clips.clip_records import (
    MAGIC,
    ClipRecord,
    RecordError,
    record_from_bytes,
    record_to_bytes,
)
from tpdiff_jax.clips.record_manifest import SCHEMA, read_clip_manifest, to_json
from tpdiff_jax.files.durable import write_durably
from tpdiff_jax.files.json_files import sha256_of_lines


def make_record(caption="a caption: \u00e9 \U0001f600"):
    rng = np.random.default_rng(0)
    arrays = {
        "video": rng.integers(0, 256, (4, 6, 8, 3), dtype=np.uint8)[:, ::-1],  # not contiguous
        "text": rng.normal(size=(5, 7)).astype(np.float16),
        "text_mask": np.array([True, True, False, False, False]),
    }
    return ClipRecord("sub/a.mp4#2", caption, arrays)


def test_a_record_survives_its_bytes():
    record = make_record()
    back = record_from_bytes(record_to_bytes(record))
    assert (back.name, back.caption) == (record.name, record.caption)
    assert list(back.arrays) == list(record.arrays)
    for name, array in record.arrays.items():
        np.testing.assert_array_equal(back.arrays[name], array)
        assert back.arrays[name].dtype == array.dtype
    assert record_to_bytes(back) == record_to_bytes(record)


def test_objects_are_never_stored():
    with pytest.raises(ValueError, match="object"):
        record_to_bytes(ClipRecord("a", "", {"video": np.array([{}], object)}))


def with_header(header):
    text = json.dumps(header).encode()
    return struct.pack("<4sI", MAGIC, len(text)) + text + bytes(8)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"TPDC",
        b"ABCD" + bytes(60),
        struct.pack("<4sI", MAGIC, 4) + b"{{{{",
        struct.pack("<4sI", MAGIC, 2**32 - 1) + b"{}",
        with_header([]),
        with_header({"name": "a", "caption": "b"}),
        with_header({"name": "a", "caption": "b", "arrays": {"video": {"dtype": "uint8"}}}),
        with_header(
            {"name": "a", "caption": "", "arrays": {"video": {"dtype": "object", "shape": [1]}}}
        ),
        with_header(
            {"name": "a", "caption": "", "arrays": {"video": {"dtype": "uint8", "shape": [-1]}}}
        ),
        with_header(
            {"name": "a", "caption": "", "arrays": {"video": {"dtype": "uint8", "shape": [9]}}}
        ),
        with_header(
            {"name": "a", "caption": "", "arrays": {"video": {"dtype": "uint8", "shape": [7]}}}
        ),
    ],
)
def test_bytes_that_are_no_record_are_refused(data):
    with pytest.raises(RecordError):
        record_from_bytes(data)


def test_every_cut_is_noticed():
    data = record_to_bytes(make_record())
    for end in range(0, len(data), 7):
        with pytest.raises(RecordError):
            record_from_bytes(data[:end])


def manifest_of(folder, **overrides):
    (folder / "train-00000-of-00001.array_record").write_bytes(b"12345")
    shard = {
        "name": "train-00000-of-00001.array_record",
        "split": "train",
        "num_clips": 3,
        "num_bytes": 5,
        "sha256": "0" * 64,
    }
    fields = {"schema": SCHEMA, "shards": [shard | overrides.pop("shard", {})], **overrides}
    write_durably(folder / "manifest.json", to_json(fields))


def test_a_manifest_is_identified_by_its_bytes(tmp_path):
    manifest_of(tmp_path)
    first = read_clip_manifest(tmp_path)
    assert first.num_clips("train") == 3 and first.num_clips("test") == 0
    manifest_of(tmp_path)
    assert read_clip_manifest(tmp_path).fingerprint == first.fingerprint
    manifest_of(tmp_path, counts={"clips": 3})
    assert read_clip_manifest(tmp_path).fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"schema": 99}, "schema 99"),
        ({"schema": 2}, "schema 2; this version reads 3: prepare the clips anew"),
        ({"shards": 3}, "no manifest"),
        ({"shard": {"num_bytes": 6}}, "the manifest says 6 bytes"),
        ({"shard": {"name": "train-00001-of-00002.array_record"}}, "no file"),
        ({"shard": {"name": "../outside"}}, "names a shard"),
        ({"shard": {"split": "dev"}}, "names a shard"),
    ],
)
def test_a_manifest_that_does_not_fit_its_folder_is_refused(tmp_path, overrides, message):
    manifest_of(tmp_path, **overrides)
    with pytest.raises(ValueError, match=message):
        read_clip_manifest(tmp_path)


def test_a_folder_without_manifest_names_the_field(tmp_path):
    with pytest.raises(ValueError, match=r"data\.folder"):
        read_clip_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="no manifest"):
        read_clip_manifest(tmp_path)


def test_the_hash_of_a_list_sees_where_an_entry_ends():
    assert sha256_of_lines(["a", "b"]) != sha256_of_lines(["a\nb"])
    assert sha256_of_lines(['a"\n"b']) != sha256_of_lines(["a", "b"])
    assert sha256_of_lines(["a", "b"]) != sha256_of_lines(["b", "a"])
