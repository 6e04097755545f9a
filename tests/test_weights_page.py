"""docs/weights.md is right: its script makes readable files, and what it names exists."""

import re
import subprocess
import sys

import jax
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from tests.models.wan.wan_reference import CONFIG, make_reference
from tests.tiny import REPO
from tpdiff_jax.command_line.flag_table import FLAGS
from tpdiff_jax.encoders import TEXT_ENCODERS
from tpdiff_jax.measures.clip_measures import MeasureSpec
from tpdiff_jax.models.published import PUBLISHED
from tpdiff_jax.models.wan.weights import load_wan
from tpdiff_jax.preparation.prepare_spec import PrepareSpec

PAGE = (REPO / "docs" / "weights.md").read_text()


@pytest.mark.parametrize("nesting", ["plain", "state_dict"])
def test_the_script_turns_a_pickle_into_what_is_read(tmp_path, nesting):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    tensors = make_reference().state_dict()
    pickle = tmp_path / "diffusion_pytorch_model.bin"
    torch.save(tensors if nesting == "plain" else {"state_dict": tensors, "epoch": 3}, pickle)
    (tmp_path / "convert.py").write_text(code)
    command = [sys.executable, "convert.py", pickle.name, "model.safetensors"]
    subprocess.run(command, cwd=tmp_path, check=True)
    (tmp_path / "whole").mkdir()
    save_file({k: v.numpy() for k, v in tensors.items()}, tmp_path / "whole" / "x.safetensors")
    found, expected = load_wan(tmp_path, CONFIG), load_wan(tmp_path / "whole", CONFIG)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_pickle_that_would_run_code_is_not_opened(tmp_path):
    class Bad:
        def __reduce__(self):
            return (exec, ("open('ran', 'w').close()",))

    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    torch.save({"weight": Bad()}, tmp_path / "bad.bin")
    (tmp_path / "convert.py").write_text(code)
    command = [sys.executable, "convert.py", "bad.bin", "out.safetensors"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert result.returncode != 0
    assert {path.name for path in tmp_path.iterdir()} == {"bad.bin", "convert.py"}


def test_every_field_and_flag_of_the_page_exists():
    fields = set(re.findall(r"`(model|prepare|measure|sample)\.(\w+)", PAGE))
    known = {"prepare": PrepareSpec, "measure": MeasureSpec}
    assert len(fields) >= 6
    for group, name in fields:
        if group in known:
            assert name in known[group].__dataclass_fields__, name
        else:
            assert (group, name) in {("model", "weights"), ("sample", "video_weights")}
    for flag in re.findall(r"`--(\w+)", PAGE):
        assert flag in FLAGS or flag == "mode", flag


def test_every_network_and_layout_that_is_read_is_on_the_page():
    for name, published in PUBLISHED.items():
        assert f"`{name}`" in PAGE
        for layout in published.layouts:
            assert f"`{layout}`" in PAGE, (name, layout)
    for parts in TEXT_ENCODERS.values():
        for folder in (folder for part in parts for folder in part.folders):
            assert f"`{folder}`" in PAGE or f"`{folder}/`" in PAGE


def test_no_host_is_named():
    assert "://" not in PAGE
