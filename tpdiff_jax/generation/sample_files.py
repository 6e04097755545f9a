"""Generated videos as files: decoded where they are latents, named by number or as VBench asks."""

import functools
import os
import pathlib
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from absl import logging

from tpdiff_jax.checks import counted
from tpdiff_jax.data import Dataset
from tpdiff_jax.encoders import VideoEncoder, hash_folders, open_video_encoder
from tpdiff_jax.files import media
from tpdiff_jax.files.durable import writing

GRID_SIZE = 16
MAX_NAME_CHARACTERS = 60
MAX_FILE_NAME_BYTES = 255  # of common file systems
_NOT_IN_NAMES = re.compile(r"[/\\\x00-\x1f\x7f]")
_SHOWN = 100

Decode = Callable[[np.ndarray], np.ndarray]


def open_decoder(dataset: Dataset, weights: str) -> Decode | None:
    """Return the map from what a network generates, [n, f, h, w, c], to pixels [n, F, H, W, 3].

    Args:
        dataset: knows whether its clips are latents, and whose.
        weights: folder of the video autoencoder, read when it is first used; "" leaves latents as
            they are, and is for pixels.

    Returns:
        None for latents without a decoder.

    Raises:
        ValueError: when the folder does not hold what the clips were encoded with.
    """
    facts, field = dataset.encoders["video"], f"sample.video_weights={weights!r}"
    name, folder = facts["name"], pathlib.Path(weights)
    if name == "pixels":
        if weights:
            raise ValueError(f"{field} must be '': clips are pixels, which nothing decodes")
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

    Under VBench's names there is no grid: VBench takes every file of the folder for a video.

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
        self._folder, self._fps, self._decode = folder, fps, decode
        self._names = SampleNames(naming)
        self._room = GRID_SIZE if naming != "vbench" else 0  # in the grid
        self._grid: list[np.ndarray] = []
        self._captions: list[str] = []
        self.names: list[str] = []

    def write(self, videos: np.ndarray, captions: Sequence[str]) -> np.ndarray | None:
        """Write one MP4 a video; latents without a decoder become .npy files.

        Args:
            videos: as the network generates them, [n, f, h, w, c].
            captions: what each shows, "" for a number alone; empty for numbers alone.

        Returns:
            The frames as written, uint8 [n, F, H, W, 3]; None for latents.
        """
        captions = list(captions) or [""] * len(videos)
        names = [self._names.next(caption) for caption in captions]
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
        self._grid += list(frames[: self._room])
        self._captions += captions[: self._room]
        self._room -= len(frames[: self._room])
        return frames

    def finish(self) -> None:
        """Write `grid.gif` where there is one, and say what was written."""
        if self._grid:
            path, captions = self._folder / "grid.gif", self._captions
            shown = captions if any(captions) else ()
            media.write_gif_grid(path, np.stack(self._grid), fps=self._fps, captions=shown)
        if self._decode is None:
            logging.warning(
                "sample.video_weights is empty: %s holds latents, not videos", self._folder
            )
        logging.info("wrote %s to %s", counted(self._names.num_given, "video"), self._folder)


def file_words(caption: str) -> str:
    """Return a caption as part of a file's name: ASCII letters, digits, `-` and `_`, not many."""
    return re.sub(r"[^a-z0-9-]+", "_", caption.lower())[:MAX_NAME_CHARACTERS].strip("_")


def vbench_name(prompt: str, index: int) -> str:
    """Return the name, without suffix, under which VBench looks for a prompt's video.

    Raises:
        ValueError: when a file cannot have that name.
    """
    name = f"{prompt}-{index}"
    shown = f"--naming=vbench: no file can be named after the prompt {prompt[:_SHOWN]!r}"
    if not prompt.strip() or _NOT_IN_NAMES.search(prompt):
        raise ValueError(f"{shown}: empty, or with a slash, a backslash or a control character")
    try:
        size = len(f"{name}.mp4".encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"{shown}: it is no text") from error
    if size > MAX_FILE_NAME_BYTES:
        raise ValueError(f"{shown}: {size} bytes in UTF-8; allowed: {MAX_FILE_NAME_BYTES}")
    return name


def check_names(folder: pathlib.Path, captions: Sequence[str], naming: str) -> None:
    """Refuse what cannot be named, before any of it is sampled.

    Args:
        folder: to write to; need not be there.
        captions: of every video, in order; "" for one without.
        naming: "numbers" or "vbench".

    Raises:
        ValueError: naming the first prompt that cannot be the name of a file there.
    """
    parents = (folder.absolute(), *folder.absolute().parents)
    there = next(path for path in parents if os.path.isdir(path))  # False for one too long
    most_of_name, most_of_path = _limit(there, "PC_NAME_MAX"), _limit(there, "PC_PATH_MAX")
    naming_files, prompt_of = SampleNames(naming), dict[str, str]()
    for caption in captions:
        name = f"{naming_files.next(caption)}.mp4"
        size = len(name.encode()), len(os.fsencode(folder.absolute() / name))
        if size[0] > most_of_name or size[1] >= most_of_path:
            raise ValueError(
                f"--naming={naming}: {name[:_SHOWN]!r} is too long for {there}: {size[0]} bytes, "
                f"{size[1]} with its folder; allowed: {most_of_name} and {most_of_path - 1}"
            )
        same = unicodedata.normalize("NFC", name).casefold()
        if same in prompt_of:
            logging.warning(
                "the prompts %r and %r differ in letters' case or accents' encoding only: where a "
                "file system does not tell these apart, the later video takes the name",
                *(prompt_of[same][:_SHOWN], caption[:_SHOWN]),
            )
        prompt_of[same] = caption


class SampleNames:
    """Names of videos without their suffix, one after the other."""

    def __init__(self, naming: str) -> None:
        """Start with the first video; `naming` is "numbers" or "vbench"."""
        self._naming = naming
        self._seen: Counter[str] = Counter()
        self.num_given = 0

    def next(self, caption: str) -> str:
        """Return the name of the next video, which shows this caption; "" for none.

        Raises:
            ValueError: when VBench's name for it cannot be that of a file.
        """
        number = self.num_given
        self.num_given += 1
        if self._naming == "vbench":
            self._seen[caption] += 1
            return vbench_name(caption, self._seen[caption] - 1)
        return f"{number:04d}_{file_words(caption)}" if caption else f"{number:04d}"


def _limit(folder: pathlib.Path, name: str) -> int:
    """A limit of a file system; far away where it names none."""
    try:
        limit = os.pathconf(folder, name)
    except (OSError, ValueError):
        limit = -1
    return limit if limit > 0 else sys.maxsize
