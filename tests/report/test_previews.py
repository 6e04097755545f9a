"""Grids as pages hold them: as long as the GIF, frame by frame."""

import base64
import io
import pathlib

import numpy as np
from PIL import Image, ImageSequence

from tpdiff_jax.files import media
from tpdiff_jax.report.previews import grid_preview


def durations(picture: io.BytesIO | pathlib.Path) -> list[int]:
    with Image.open(picture) as frames:
        told = []
        for frame in ImageSequence.Iterator(frames):
            frame.load()
            told.append(frame.info["duration"])
        return told


def test_frames_that_stand_still_do_not_slow_the_others_down(tmp_path: pathlib.Path) -> None:
    """A GIF holds equal frames as one that lasts longer: here the last four."""
    videos = np.random.default_rng(0).integers(0, 255, (1, 6, 32, 32, 3), np.uint8)
    videos[:, 3:] = videos[:, 2:3]
    media.write_gif_grid(tmp_path / "grid.gif", videos, fps=10)
    assert durations(tmp_path / "grid.gif") == [100, 100, 400]
    preview = grid_preview(tmp_path / "grid.gif")
    assert preview is not None
    moving = base64.b64decode(preview.moving.split(",")[1])
    assert durations(io.BytesIO(moving)) == [100, 100, 400]
