"""The bench of decoding: a tree against itself is as fast, and the page says what was measured."""

import numpy as np
import pytest

from bench import decode


def test_a_tree_is_as_fast_as_itself_and_memory_is_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "VIDEOS", {"small": ("mpeg4", 90, 160, {"g": "60"})})
    seconds = decode.compare(tmp_path, decode.REPO, with_decord=False, rounds=5)["small"]
    assert len(seconds["before"]) == len(seconds["now"]) == 5
    assert 0.3 < np.median(np.array(seconds["before"]) / seconds["now"]) < 3
    found = decode.resident_bytes(tmp_path, clips=10)
    assert [clips for clips, _ in found] == list(range(1, 11))
    assert all(10 * decode.MEBIBYTE < size < 10_000 * decode.MEBIBYTE for _, size in found)


@pytest.mark.parametrize(
    ("others", "row"),
    [
        ((), "| H.264 | 100 |"),
        (("before",), "| H.264 | 100 | 300 | 3.00 [2.50, 3.50] |"),
        (
            ("decord", "before"),
            "| H.264 | 100 | 300 | 3.00 [2.50, 3.50] | 50 | 0.50 [0.45, 0.60] |",
        ),
    ],
)
def test_the_page(others, row):
    seconds = {"before": [0.2, 0.4, 0.3], "now": [0.1, 0.1, 0.1], "decord": [0.05, 0.07, 0.04]}
    kept = {which: seconds[which] for which in ("now", *others)}
    report = {
        "command": "python -m bench.decode",
        "device": {"machine": "x86_64"},
        "rounds": 3,
        "seconds": {"H.264": kept},
        "resident": [(100, 200 * decode.MEBIBYTE)],
    }
    page = decode.write_page(report)
    assert row in page.splitlines()
    assert "| 100 | 200 |" in page
