"""The identity of weights is that of their tensors, not of the files that they lie in."""

import hashlib
import json
import pathlib
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.evals.i3d_reference import random_reference
from tpdiff_jax.evals import convert_i3d
from tpdiff_jax.evals.i3d_weights import load_i3d
from tpdiff_jax.files.json_files import sha256_of_lines
from tpdiff_jax.weights.tensor_files import open_tensor_folder, save_tensors
from tpdiff_jax.weights.weight_hash import hash_folders, hash_tensors

A = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.arange(4, dtype=np.int32)
C = np.asarray([1.5, -2.0], ml_dtypes.bfloat16)
WIDTH = 1 / 32


def write_raw(path: pathlib.Path, tensors: dict[str, tuple[str, list[int], bytes]], **meta: str):
    """A safetensors file, byte by byte, with metadata in the order in which it is given."""
    header: dict = {"__metadata__": meta} if meta else {}
    body = b""
    for name, (dtype, shape, content) in tensors.items():
        offsets = [len(body), len(body) + len(content)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        body += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def by_hand(*tensors: tuple[str, str, list[int], bytes]) -> str:
    lines = [
        json.dumps([name, dtype, shape, hashlib.sha256(content).hexdigest()])
        for name, dtype, shape, content in tensors
    ]
    return sha256_of_lines(sorted(lines))


def test_metadata_order_of_tensors_and_shards_do_not_count(tmp_path: pathlib.Path) -> None:
    a, b = ("F32", [2, 3], A.tobytes()), ("I32", [4], B.tobytes())
    expected = by_hand(("a", *a), ("b", *b))
    write_raw(tmp_path / "1.safetensors", {"a": a, "b": b})
    write_raw(tmp_path / "2.safetensors", {"b": b, "a": a}, source="x", source_sha256="y")
    write_raw(tmp_path / "3.safetensors", {"b": b, "a": a}, source_sha256="y", source="x")
    files = [tmp_path / f"{i}.safetensors" for i in (1, 2, 3)]
    assert len({path.read_bytes() for path in files}) == 3
    assert [hash_tensors([path]) for path in files] == [expected] * 3
    write_raw(tmp_path / "4.safetensors", {"a": a})
    write_raw(tmp_path / "5.safetensors", {"b": b})
    assert hash_tensors([tmp_path / "5.safetensors", tmp_path / "4.safetensors"]) == expected


@pytest.mark.parametrize(
    "other",
    [
        {"a": ("F32", [3, 2], A.tobytes()), "b": ("I32", [4], B.tobytes())},
        {"a": ("F32", [2, 3], (A + 1).tobytes()), "b": ("I32", [4], B.tobytes())},
        {"a": ("I32", [2, 3], A.tobytes()), "b": ("I32", [4], B.tobytes())},
        {"c": ("F32", [2, 3], A.tobytes()), "b": ("I32", [4], B.tobytes())},
        {"a": ("F32", [2, 3], A.tobytes())},
    ],
)
def test_name_type_shape_and_bytes_of_every_tensor_count(other, tmp_path: pathlib.Path) -> None:
    write_raw(tmp_path / "1", {"a": ("F32", [2, 3], A.tobytes()), "b": ("I32", [4], B.tobytes())})
    write_raw(tmp_path / "2", other)
    assert hash_tensors([tmp_path / "1"]) != hash_tensors([tmp_path / "2"])


def test_types_that_numpy_lacks_have_an_identity_too(tmp_path: pathlib.Path) -> None:
    save_file({"c": C}, tmp_path / "c.safetensors")
    assert hash_tensors([tmp_path / "c.safetensors"]) == by_hand(("c", "BF16", [2], C.tobytes()))
    write_raw(tmp_path / "f8", {"x": ("F8_E4M3", [4], b"\1\2\3\4")})
    assert hash_tensors([tmp_path / "f8"]) == by_hand(("x", "F8_E4M3", [4], b"\1\2\3\4"))


def test_a_folder_is_its_tensors_and_its_configs(tmp_path: pathlib.Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    save_file({"a": A, "b": B}, whole / "model.safetensors")
    save_file({"a": A}, parts / "1.safetensors", metadata={"made": "elsewhere"})
    save_file({"b": B}, parts / "2.safetensors")
    index = {"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
    (parts / "model.safetensors.index.json").write_text(json.dumps(index))
    assert hash_folders(whole) == hash_folders(parts)
    (parts / "config.json").write_text("{ }")
    assert hash_folders(whole) != hash_folders(parts)


@pytest.mark.parametrize("kind", ["empty", "cut", "nested", "offsets", "number", "huge"])
def test_a_damaged_file_has_no_identity_and_one_line(kind: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.safetensors"
    write_raw(path, {"a": ("F32", [2, 3], A.tobytes())})
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif kind == "huge":
        path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    else:
        text = {
            "nested": '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
            "offsets": '{"a": {"dtype": "F32", "shape": [6], "data_offsets": [24, 0]}}',
            "number": '{"a": {"dtype": 7, "shape": "six", "data_offsets": [-1, 1e9]}}',
        }[kind].encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(ValueError, match=r"a\.safetensors") as error:
        hash_folders(tmp_path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_the_same_conversion_has_one_hash_and_the_same_bytes(tmp_path: pathlib.Path) -> None:
    tensors = {n: t.numpy() for n, t in random_reference(WIDTH).state_dict().items()}
    np.savez(tmp_path / "source.npz", **tensors)
    contents, hashes = set(), set()
    for i in range(6):  # two entries of metadata would come in random order
        target = tmp_path / f"{i}.safetensors"
        convert_i3d.convert(tmp_path / "source.npz", target, WIDTH)
        contents.add(target.read_bytes())
        hashes.add(load_i3d(target, WIDTH).sha256)
    assert len(contents) == 1 and len(hashes) == 1
    source = load_i3d(target, WIDTH).source
    digest = hashlib.sha256((tmp_path / "source.npz").read_bytes()).hexdigest()
    assert source == {"source": "source.npz", "source_sha256": digest}


def test_a_file_of_an_earlier_version_keeps_its_origin_and_has_the_same_hash(
    tmp_path: pathlib.Path,
) -> None:
    tensors = {n: t.numpy() for n, t in random_reference(WIDTH).state_dict().items()}
    np.savez(tmp_path / "source.npz", **tensors)
    convert_i3d.convert(tmp_path / "source.npz", tmp_path / "new", WIDTH)
    params = load_i3d(tmp_path / "new", WIDTH).params
    flat = {f"{unit}.{role}": a for unit, roles in params.items() for role, a in roles.items()}
    save_file(flat, tmp_path / "old", metadata={"source": "s.pt", "source_sha256": "0"})
    old = load_i3d(tmp_path / "old", WIDTH)
    assert old.source == {"source": "s.pt", "source_sha256": "0"}
    assert old.sha256 == load_i3d(tmp_path / "new", WIDTH).sha256


def test_metadata_in_random_order_cannot_be_written(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="metadata has 2 entries; allowed: 1"):
        save_tensors(tmp_path / "x", {"a": A}, {"one": "1", "two": "2"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("dtype", "size"), [("F8_E4M3", 4), ("F8_E5M2", 4), ("F4", 2), ("F8_E8M0", 4), ("C64", 32)]
)
def test_types_that_are_no_parameters_are_refused_before_any_is_read(
    dtype: str, size: int, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "model.safetensors"
    write_raw(path, {"a": ("F32", [1], b"\0" * 4), "x": (dtype, [4], b"\0" * size)})
    told = rf"model\.safetensors: tensor 'x' is of type {dtype} \(1 such in all\); allowed: F64"
    with pytest.raises(ValueError, match=told):
        open_tensor_folder(tmp_path)
    with pytest.raises(ValueError, match=told):
        load_i3d(path, WIDTH)


@pytest.mark.parametrize(
    "index",
    [
        '{"weight_map": {"a": 1}}',
        '{"weight_map": {"a": ["x"], "b": "x"}}',
        '{"weight_map": {"a": null}}',
        '{"weight_map": ["x.safetensors"]}',
        '{"weight_map": {}}',
        '{"weight_map": ' + '{"a":' * 50_000 + "1" + "}" * 50_000 + "}",
        "[]",
    ],
)
def test_an_index_of_anything_but_names_is_one_line(index: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ValueError, match=r"model\.safetensors\.index\.json") as error:
        open_tensor_folder(tmp_path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
