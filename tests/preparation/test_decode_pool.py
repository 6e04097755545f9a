"""Decoding in processes keeps the order, and a decoder that crashes costs its own video only."""

import os
import pathlib
import resource
import time
from fractions import Fraction

import numpy as np
import pytest

from tests.preparation.video_files import write_video
from tpdiff_jax.clips.bad_clips import BadClipError
from tpdiff_jax.clips.bucket import Bucket
from tpdiff_jax.files.open_files import OpenFilesError
from tpdiff_jax.preparation.clip_source import ClipSource
from tpdiff_jax.preparation.decode_pool import DecodePool, decode_source
from tpdiff_jax.preparation.video_decode import ClipFormat

SPEC = ClipFormat(
    buckets=(Bucket(8, 32, 48),),
    fps=Fraction(8),
    clips_per_video=1,
    max_pixels=10**9,
    max_seconds=100.0,
)


def pretend(root, clip, spec):
    """Stand in for the decoder, in a worker process: name it, take long, or die."""
    number = int(clip.path)
    if number in (3, 4):
        os._exit(17)  # as a native crash does: no exception, no clean-up
    time.sleep(0.05 if number % 2 == 0 else 0.0)
    return [np.full((1,), number, np.uint8)]


def test_crashes_are_bad_clips_and_the_order_stays():
    clips = [ClipSource(path=str(i)) for i in range(8)]
    with DecodePool(pathlib.Path("."), SPEC, 2, decode=pretend) as pool:
        found = list(pool.outcomes(clips))
    assert [clip for clip, _ in found] == clips
    for number, (_, outcome) in enumerate(found):
        if number in (3, 4):
            assert isinstance(outcome, BadClipError) and outcome.reason == "crashed"
        else:
            assert outcome[0].tolist() == [number]


@pytest.mark.parametrize(
    ("path", "reason"), [("../a.mp4", "parent_folder"), ("gone.mp4", "missing_file")]
)
def test_paths_are_checked_again_before_decoding(tmp_path, path, reason):
    outcome = decode_source(str(tmp_path), ClipSource(path=path), SPEC)
    assert outcome.reason == reason


def test_a_file_that_may_not_be_read_is_unreadable(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(b"x")

    def refuse(path, spec):
        raise PermissionError(path)

    monkeypatch.setattr("tpdiff_jax.preparation.decode_pool.read_clips", refuse)
    outcome = decode_source(str(tmp_path), ClipSource(path="a.mp4"), SPEC)
    assert outcome.reason == "unreadable"


def test_an_error_that_nobody_expects_costs_its_video_alone_and_is_logged(
    tmp_path, monkeypatch, caplog
):
    (tmp_path / "a.mp4").write_bytes(b"x")
    monkeypatch.setattr("tpdiff_jax.preparation.decode_pool.read_clips", lambda *_: [][0])
    outcome = decode_source(str(tmp_path), ClipSource(path="a.mp4"), SPEC)
    assert isinstance(outcome, BadClipError) and outcome.reason == "corrupt"
    assert outcome.detail == "IndexError: list index out of range"
    assert "a.mp4" in caplog.text and "Traceback" in caplog.text


def test_the_limit_of_open_files_is_no_damage_of_a_video(tmp_path):
    write_video(tmp_path / "a.mp4", 40)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = next(n for n in range(soft) if not os.path.exists(f"/proc/self/fd/{n}"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))  # not one more
    try:
        with pytest.raises(OpenFilesError, match=r"too many open files: .*a\.mp4.* \(ulimit -n\)"):
            decode_source(str(tmp_path), ClipSource(path="a.mp4"), SPEC)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(decode_source(str(tmp_path), ClipSource(path="a.mp4"), SPEC)) == 1
