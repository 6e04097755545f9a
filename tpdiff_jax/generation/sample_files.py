"""Generated videos as files: decoded where they are latents, named by number or as VBench asks."""

import functools
import pathlib
import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from absl import logging

from tpdiff_jax.data import Dataset
from tpdiff_jax.encoders import VideoEncoder, hash_folders, open_video_encoder
from tpdiff_jax.files import media
from tpdiff_jax.files.durable import writing

GRID_SIZE = 16
MAX_NAME_CHARACTERS = 60
MAX_FILE_NAME_BYTES = 255  # of common file systems

Decode = Callable[[np.ndarray], np.ndarray]


def open_decoder(dataset: Dataset, weights: str) -> Decode | None:
    """Return the map from what a network generates, [n, f, h, w, c], to pixels [n, F, H, W, 3].

    Args:
        dataset: knows whether its clips are latents, and whose.
        weights: folder of the video autoencoder, read when it is first used; "" leaves latents as
            they are.

    Returns:
        None for latents without a decoder.

    Raises:
        ValueError: when the folder does not hold what the clips were encoded with.
    """
    facts, field = dataset.encoders["video"], f"sample.video_weights={weights!r}"
    name, folder = facts["name"], pathlib.Path(weights)
    if name == "pixels":
        return lambda videos: videos
    if not weights:
        return None
    if "weights_sha256" not in facts:
        raise ValueError(f"{field} must be '': the data do not say what encoded them")
    if not folder.is_dir():
        raise ValueError(f"{field} must be the folder of the {name!r} that encoded the clips")
    if hash_folders(folder) != facts["weights_sha256"]:
        raise ValueError(f"{field} does not hold the {name!r} that encoded the clips")

    @functools.cache
    def encoder() -> VideoEncoder:
        return open_video_encoder(name, folder)

    return lambda videos: np.stack([encoder().decode(latents) for latents in videos])


class SampleWriter:
    """Writes videos as they come, numbered through, and a grid of the first ones at the end.

    Attributes:
        names: of the files written, without their suffix.
    """

    def __init__(
        self, folder: pathlib.Path, fps: float, decode: Decode | None, naming: str = "numbers"
    ) -> None:
        """Make the folder.

        Args:
            folder: where to.
            fps: frames per second.
            decode: what `open_decoder` returns; None writes latents.
            naming: "numbers" or "vbench".
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._fps, self._decode, self._naming = folder, fps, decode, naming
        self._num_written = 0
        self._seen: Counter[str] = Counter()
        self._grid: list[np.ndarray] = []
        self._captions: list[str] = []
        self.names: list[str] = []

    def write(self, videos: np.ndarray, captions: Sequence[str]) -> np.ndarray | None:
        """Write one MP4 a video; latents without a decoder become .npy files.

        Args:
            videos: as the network generates them, [n, f, h, w, c].
            captions: what each shows; empty for numbers alone.

        Returns:
            The frames as written, uint8 [n, F, H, W, 3]; None for latents.
        """
        names = [self._name(captions[j] if captions else "") for j in range(len(videos))]
        self.names += names
        if self._decode is None:
            for name, latents in zip(names, videos, strict=True):
                path = self._folder / f"{name}.npy"
                with writing(path) as temporary, temporary.open("wb") as file:
                    np.save(file, latents, allow_pickle=False)
            return None
        frames = media.to_uint8(self._decode(videos))
        for name, video in zip(names, frames, strict=True):
            media.write_mp4(self._folder / f"{name}.mp4", video, fps=self._fps)
        room = GRID_SIZE - len(self._grid)
        self._grid += list(frames[:room])
        self._captions += list(captions[:room])
        return frames

    def finish(self) -> None:
        """Write `grid.gif`, or say why there is none."""
        if self._grid:
            path = self._folder / "grid.gif"
            media.write_gif_grid(path, np.stack(self._grid), fps=self._fps, captions=self._captions)
        if self._decode is None:
            logging.warning(
                "sample.video_weights is empty: %s holds latents, not videos", self._folder
            )
        logging.info("wrote %d videos to %s", self._num_written, self._folder)

    def _name(self, caption: str) -> str:
        number = self._num_written
        self._num_written += 1
        if self._naming == "vbench":
            self._seen[caption] += 1
            return vbench_name(caption, self._seen[caption] - 1)
        return f"{number:04d}_{file_words(caption)}" if caption else f"{number:04d}"


def file_words(caption: str) -> str:
    """Return a caption as part of a file's name: ASCII letters, digits, `-` and `_`, not many."""
    return re.sub(r"[^a-z0-9-]+", "_", caption.lower())[:MAX_NAME_CHARACTERS].strip("_")


def vbench_name(prompt: str, index: int) -> str:
    """Return the name, without suffix, under which VBench looks for a prompt's video.

    Raises:
        ValueError: when a file cannot have that name.
    """
    name = f"{prompt}-{index}"
    if not prompt or "/" in name or len(f"{name}.mp4".encode()) > MAX_FILE_NAME_BYTES:
        raise ValueError(f"--naming=vbench: no file can be named after the prompt {prompt[:300]!r}")
    return name
