"""The bench of attention kernels: what exists here, what each costs, and that they agree."""

import json

import jax
import numpy as np
import pytest

from bench import attention
from bench.attention import attention_flops, kernels_here, main, write_page


def test_only_kernels_of_this_device_are_listed(monkeypatch):
    assert list(kernels_here("float32")) == ["textbook", "jax.nn", "xla", "blocks"]
    monkeypatch.setattr(attention.jax, "default_backend", lambda: "tpu")
    assert list(kernels_here("float32")) == ["textbook", "jax.nn", "xla", "blocks", "splash"]
    monkeypatch.setattr(attention.jax, "default_backend", lambda: "gpu")
    assert "cudnn" not in kernels_here("float32") and "cudnn" in kernels_here("bfloat16")


def test_flops_are_those_of_the_two_products():
    """2 x 3 heads: scores are 5x4 times 4x5, values 5x5 times 5x4, two FLOPs a term."""
    assert attention_flops((2, 5, 3, 4), "forward") == 2 * 3 * (2 * 5 * 5 * 4 + 2 * 5 * 5 * 4)
    assert attention_flops((2, 5, 3, 4), "gradient") == 3 * attention_flops((2, 5, 3, 4), "forward")


def test_the_page_compares_with_the_textbook_within_a_round():
    report = {
        "device": {"platform": "cpu", "kind": "cpu"},
        "dtype": "float32",
        "clock": "time by the clock",
        "kernels": ["textbook", "xla"],
        "command": "python -m bench.attention",
        "differences": {"1x10x1x100/textbook": 0.0, "1x10x1x100/xla": 1e-7, "1x2x1x1/bad": 1.0},
        "different": ["1x2x1x1/bad"],
        "scratch_bytes": {"1x10x1x100/xla": 2_500_000, "1x10x1x100/textbook": 0, "1x2x1x1/bad": 1},
        "seconds": {
            "1x10x1x100/textbook/forward": [2.0, 4.0],
            "1x10x1x100/textbook/gradient": [6.0, 6.0],
            "1x10x1x100/xla/forward": [1.0, 2.0],
            "1x10x1x100/xla/gradient": [6.0, 6.0],
        },
    }
    page = write_page(report)
    assert "| 1x10x1x100 | xla | 1500 [1250, 1750] | 2.67e-05 | 0.5 [0.5, 0.5] |" in page
    assert "| 1 [1, 1] | 2.5 |" in page
    assert "**Differ from the textbook's result: 1x2x1x1/bad.**" in page


def test_bad_shapes_end_with_one_line(tmp_path, capsys):
    assert main([f"--out={tmp_path}", "--shapes=16x4"]) == attention.EXIT_BAD_INPUT
    assert "--shapes=16x4 must be like 16x256x4x64" in capsys.readouterr().err


@pytest.mark.parametrize("has_pytorch", [False, True])
def test_kernels_agree_and_are_timed(tmp_path, monkeypatch, has_pytorch):
    if has_pytorch:
        pytest.importorskip("torch")
    monkeypatch.setattr(attention, "has_pytorch", lambda: has_pytorch)
    assert main([f"--out={tmp_path}", "--shapes=2x8x2x4", "--rounds=1"]) == 0
    report = json.loads((tmp_path / "attention.json").read_text())
    assert report["different"] == [] and len(report["seconds"]) == (10 if has_pytorch else 8)
    assert max(report["differences"].values()) < 1e-6


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_pytorch_computes_the_same_gradients(dtype, tolerance):
    pytest.importorskip("torch")
    from bench.attention_pytorch import pytorch_attention

    arrays = [jax.random.normal(jax.random.key(i), (2, 8, 2, 4), dtype) for i in range(3)]
    expected = attention.gradient(attention.textbook_attention)(*arrays)
    for found, value in zip(pytorch_attention(*arrays)[1](), expected, strict=True):
        np.testing.assert_allclose(found, value.astype(np.float32), tolerance, tolerance)


def test_a_kernel_that_differs_is_named_and_not_timed(tmp_path, monkeypatch):
    wrong = {"wrong": lambda q, k, v: 2.0 * attention.textbook_attention(q, k, v)}
    monkeypatch.setattr(attention, "KERNELS", wrong)
    monkeypatch.setattr(attention, "check_kernel", lambda *_: None)
    code = main([f"--out={tmp_path}", "--shapes=2x8x2x4", "--rounds=1"])
    report = json.loads((tmp_path / "attention.json").read_text())
    assert code == attention.EXIT_DIFFERENT and report["different"] == ["2x8x2x4/wrong"]
    assert not [name for name in report["seconds"] if "wrong" in name]
