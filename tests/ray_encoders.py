"""What other processes than the test's import: encoders and a decoder, most of them misbehaving."""

import os
import pathlib
import signal
from collections.abc import Mapping

import numpy as np

from tpdiff_jax.preparation.clip_encoder import PIXELS, ClipEncoder
from tpdiff_jax.preparation.clip_source import ClipSource
from tpdiff_jax.preparation.decode_pool import Outcome, decode_source
from tpdiff_jax.preparation.prepare_spec import PrepareSpec
from tpdiff_jax.preparation.video_decode import ClipFormat

DEATHS = "RAY_TEST_DEATHS"
"""A folder: a worker that can make one of its files `death-N` dies in the middle of a shard."""


def open_pixels(spec: PrepareSpec) -> ClipEncoder:
    del spec
    return PIXELS


def open_dying(spec: PrepareSpec) -> ClipEncoder:
    """Pixels; the process is killed at the second clip of the shard where it is allowed to."""
    del spec

    def encode(frames: np.ndarray, caption: str) -> Mapping[str, np.ndarray]:
        allowed, clip = caption.partition(":")[::2]
        folder = pathlib.Path(os.environ[DEATHS])
        for number in range(int(allowed or 0)):
            try:
                (folder / f"{clip}-{number}").touch(exist_ok=False)
            except FileExistsError:
                continue
            os.kill(os.getpid(), signal.SIGKILL)
        return {"video": frames}

    return PIXELS._replace(encode=encode)


def open_changing(spec: PrepareSpec) -> ClipEncoder:
    """Arrays whose length follows the caption, which no data set may have."""
    del spec
    return PIXELS._replace(encode=lambda frames, caption: {"video": frames[: len(caption)]})


def open_other(spec: PrepareSpec) -> ClipEncoder:
    """Facts that differ from those of the process that asked."""
    del spec
    return PIXELS._replace(facts={"video": {"name": "other weights"}, "text": {"name": "none"}})


def crash_at_fifth(root: str, clip: ClipSource, clip_format: ClipFormat) -> Outcome:
    """Decode; at one video end the process as a native crash does: no exception, no clean-up."""
    if clip.path == "5.mp4":
        os._exit(17)
    return decode_source(root, clip, clip_format)
