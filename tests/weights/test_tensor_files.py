"""Folders of safetensors: whole, sharded, damaged."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from tpdiff_jax.files.json_files import read_json
from tpdiff_jax.weights.tensor_files import INDEX_FILE, open_tensor_folder, write_folder

TENSORS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(4).astype(ml_dtypes.bfloat16),
    "c": np.arange(3, dtype=np.float16),
}
SIZES = {name: tensor.nbytes for name, tensor in TENSORS.items()}


def check_holds_all(folder):
    opened = open_tensor_folder(folder)
    assert opened.shapes == {name: tensor.shape for name, tensor in TENSORS.items()}
    for name, tensor in TENSORS.items():
        assert opened.read(name).dtype == tensor.dtype
        np.testing.assert_array_equal(opened.read(name), tensor)


def test_one_file_round_trip(tmp_path):
    write_folder(tmp_path / "new", SIZES, TENSORS.__getitem__)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["diffusion_pytorch_model.safetensors"]
    check_holds_all(tmp_path / "new")


def test_shards_with_an_index_round_trip(tmp_path):
    write_folder(tmp_path, SIZES, TENSORS.__getitem__, shard_bytes=14)  # 24 | 8 + 6 bytes
    index = json.loads((tmp_path / INDEX_FILE).read_text())
    first, second = (f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2))
    assert index["weight_map"] == {"a": first, "b": second, "c": second}
    assert index["metadata"]["total_size"] == 24 + 8 + 6
    check_holds_all(tmp_path)


def test_files_without_an_index_belong_together(tmp_path):
    save_file({"a": TENSORS["a"]}, tmp_path / "one.safetensors")
    save_file({"b": TENSORS["b"], "c": TENSORS["c"]}, tmp_path / "two.safetensors")
    check_holds_all(tmp_path)


def test_the_index_says_which_files_belong(tmp_path):
    write_folder(tmp_path, SIZES, TENSORS.__getitem__, shard_bytes=14)
    save_file({"a": TENSORS["a"]}, tmp_path / "stray.safetensors")
    check_holds_all(tmp_path)


def test_nothing_is_written_over(tmp_path):
    save_file({"a": TENSORS["a"]}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="already holds safetensors"):
        write_folder(tmp_path, SIZES, TENSORS.__getitem__)


def test_a_folder_without_safetensors_is_refused(tmp_path):
    (tmp_path / "diffusion_pytorch_model.bin").write_bytes(b"not read")
    with pytest.raises(ValueError, match=r"holds no .safetensors file \(other formats are not"):
        open_tensor_folder(tmp_path)
    with pytest.raises(ValueError, match=r"elsewhere holds no .* \(there is no such folder\)"):
        open_tensor_folder(tmp_path / "elsewhere")


def test_a_damaged_file_is_named(tmp_path):
    save_file({"a": TENSORS["a"]}, tmp_path / "x.safetensors")
    content = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(content[:-4])
    with pytest.raises(ValueError, match="x.safetensors is not a readable safetensors file"):
        open_tensor_folder(tmp_path)


def test_a_tensor_in_two_files_is_refused(tmp_path):
    for name in ("one", "two"):
        save_file({"a": TENSORS["a"]}, tmp_path / f"{name}.safetensors")
    with pytest.raises(ValueError, match="one.safetensors and two.safetensors both hold 'a'"):
        open_tensor_folder(tmp_path)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "gone.safetensors"}, "lacks the shard 'gone.safetensors'"),
        ({"a": "../x.safetensors"}, "names '../x.safetensors', which is not a file beside it"),
        ({}, "must have a table `weight_map`"),
        (["a"], "must have a table `weight_map`"),
    ],
)
def test_an_index_that_does_not_hold_is_refused(tmp_path, weight_map, message):
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ValueError, match=message):
        open_tensor_folder(tmp_path)


def test_two_indices_are_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match="holds several indices"):
        open_tensor_folder(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_what_is_no_json_object_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match="x.json"):
        read_json(tmp_path / "x.json")
