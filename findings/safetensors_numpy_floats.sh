#!/usr/bin/env bash
# safetensors 0.8.0, numpy 2.4.6, ml_dtypes 0.6.0.
#
# Good guess: what `safetensors.numpy.save` writes, `safetensors.numpy` reads; whether a file can be read
#   depends on the file.
# What happens: there are two readers with two tables of types, neither of them the writer's. `load` knows no
#   bfloat16 or float8 (KeyError). `load_file` and `safe_open(..., "np")` ask numpy for a type by name: a
#   bfloat16 file raises a TypeError until any module of the process has imported ml_dtypes, and reads
#   from then on. A float8 file raises an AttributeError, before and after.
# Seen: as said; float16 (control) reads everywhere, and `safe_open` gives the shape and type of all of them.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile \
    safetensors==0.8.0 numpy==2.4.6 ml_dtypes==0.6.0
cd "$dir"
venv/bin/python - <<'PY'
import ml_dtypes
import numpy as np
from safetensors.numpy import save

for name, kind in (
    ("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16), ("float8_e4m3fn", ml_dtypes.float8_e4m3fn),
):
    with open(name, "wb") as file:
        file.write(save({"w": np.array([0.5, 1, 2, -4]).astype(kind)}))
PY
venv/bin/python - <<'PY'
import sys

from safetensors import safe_open
from safetensors.numpy import load, load_file


def read(name):
    with open(name, "rb") as file:
        data = file.read()
    found = []
    with safe_open(name, "np") as file:
        assert file.get_slice("w").get_shape() == [4]
        kind = file.get_slice("w").get_dtype()
        for reader in (lambda: load(data)["w"], lambda: load_file(name)["w"], lambda: file.get_tensor("w")):
            try:
                array = reader()
                assert array.astype(float).tolist() == [0.5, 1, 2, -4]
                found.append(array.dtype.name)
            except Exception as error:
                found.append(type(error).__name__)
    print(f"  {kind:8} load: {found[0]}, load_file: {found[1]}, safe_open: {found[2]}")
    return found


print("before anybody imports ml_dtypes:")
assert "ml_dtypes" not in sys.modules
assert read("float16") == ["float16"] * 3
assert read("bfloat16") == ["KeyError", "TypeError", "TypeError"]
assert read("float8_e4m3fn") == ["KeyError", "AttributeError", "AttributeError"]
print("after:")
import ml_dtypes  # noqa: E402, F401

assert read("float16") == ["float16"] * 3
assert read("bfloat16") == ["KeyError", "bfloat16", "bfloat16"]
assert read("float8_e4m3fn") == ["KeyError", "AttributeError", "AttributeError"]
PY
