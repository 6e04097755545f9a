"""Batch t is a pure function of (seed, t), whoever renders it and however many hosts share it."""

import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from absl import flags

from tpdiff_jax.data import MovingDigitsSpec, make_iterator

SPEC = MovingDigitsSpec(num_frames=4)


def eight_clips(step, rows=range(8)):
    return [8 * step + row for row in rows]


def read(count, **kwargs):
    stream = make_iterator(
        SPEC, "train", **{"seed": 5, "clips_of_step": eight_clips, "num_threads": 0, **kwargs}
    )
    return [next(stream) for _ in range(count)]


def assert_equal_batches(a, b):
    np.testing.assert_array_equal(a["index"], b["index"])
    np.testing.assert_array_equal(a["video"], b["video"])
    np.testing.assert_array_equal(a["cond"]["label"], b["cond"]["label"])


def test_batch_t_holds_the_clips_of_step_t():
    batches = read(3)
    for t, batch in enumerate(batches):
        np.testing.assert_array_equal(batch["index"], np.arange(8 * t, 8 * t + 8))
    np.testing.assert_array_equal(batches[2]["video"][3], SPEC.clip("train", 5, 19)["video"])
    assert batches[0]["video"].shape == (8, 4, 32, 32, 1)
    assert batches[0]["video"].dtype == np.float32
    assert batches[0]["cond"]["label"].dtype == np.int32
    assert batches[0]["index"].dtype == np.int64


@pytest.mark.parametrize("hosts", [2, 4, 8])
def test_hosts_slices_laid_end_to_end_are_the_one_host_batch(hosts):
    whole = read(3)
    shares = np.split(np.arange(8), hosts)
    parts = [read(3, clips_of_step=partial(eight_clips, rows=share)) for share in shares]
    for t in range(3):
        for name in ("video", "index"):
            joined = np.concatenate([parts[p][t][name] for p in range(hosts)])
            np.testing.assert_array_equal(joined, whole[t][name])


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_do_not_change_batches(threads):
    for a, b in zip(read(6), read(6, num_threads=threads), strict=True):
        assert_equal_batches(a, b)


def test_resuming_at_step_n_continues_the_run():
    uninterrupted = read(7)
    for a, b in zip(uninterrupted[4:], read(3, start_step=4, num_threads=2), strict=True):
        assert_equal_batches(a, b)


def test_starting_late_is_not_slower_than_starting_early():
    (batch,) = read(1, start_step=10**9)
    assert batch["index"][0] == 8 * 10**9


@pytest.mark.slow
def test_worker_processes_do_not_change_batches(tmp_path):
    script = tmp_path / "read_with_workers.py"
    script.write_text(
        "import sys\n"
        "import numpy as np\n"
        "from absl import app\n"
        "from tpdiff_jax.data import MovingDigitsSpec, make_iterator\n"
        "def eight_clips(step):\n"
        "    return range(8 * step, 8 * step + 8)\n"
        "def main(_):\n"
        "    stream = make_iterator(MovingDigitsSpec(num_frames=4), 'train', seed=5,\n"
        "                           clips_of_step=eight_clips, num_threads=1,\n"
        "                           num_workers=2)\n"
        f"    np.save({str(tmp_path / 'videos.npy')!r},\n"
        "            np.stack([next(stream)['video'] for _ in range(5)]))\n"
        "if __name__ == '__main__':\n"
        "    app.run(main, [sys.argv[0]])\n"
    )
    result = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert (tmp_path / "videos.npy").exists(), result.stderr[-2000:]
    expected = np.stack([batch["video"] for batch in read(5)])
    np.testing.assert_array_equal(np.load(tmp_path / "videos.npy"), expected)


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"start_step": -1}, "start_step"),
        ({"num_threads": -1}, "data.num_threads"),
    ],
)
def test_bad_arguments_are_named(kwargs, named):
    with pytest.raises(ValueError, match=named):
        read(1, **kwargs)


def test_workers_without_parsed_flags_are_refused(monkeypatch):
    monkeypatch.setattr(type(flags.FLAGS), "is_parsed", lambda self: False)
    with pytest.raises(ValueError, match="parsed absl flags"):
        read(1, num_workers=1)
