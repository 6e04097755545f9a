"""The data bench: what it prints from known figures, and that waiting costs no processor time."""

import time

from bench.data import prepare_spec as bench_spec
from bench.data import processor_seconds, read_clips, write_page, write_video

REPORT = {
    "device": {"platform": "cpu", "machine": "abacus"},
    "rounds": 3,
    "command": "python -m bench.data",
    "decode_seconds_per_clip": {"H.264 640x360": [0.02, 0.02, 0.5]},
    "trainings": {
        "a": {"load_seconds_per_clip": 0.002, "train_seconds_per_clip": 0.05, "ratio": 25.0}
    },
}


def test_the_page_shows_clips_per_second_and_the_ratio():
    page = write_page(REPORT)
    assert "| H.264 640x360 | 20 | 50 |" in page
    assert "| a | 500 | 20 | 25 |" in page


def test_waiting_is_not_counted():
    assert max(processor_seconds(lambda _: time.sleep(0.2), 2)) < 0.1
    busy = processor_seconds(lambda _: sum(range(2_000_000)), 2)
    assert min(busy) > 0.005


def test_the_videos_of_the_bench_can_be_decoded(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, 0, "libx264", 72, 128, {"preset": "ultrafast"})
    (clip,) = read_clips(path, bench_spec(tmp_path, 32).clip_format)
    assert clip.shape == (16, 32, 32, 3) and clip.std() > 10
