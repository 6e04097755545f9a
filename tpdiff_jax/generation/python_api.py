"""Sampling from Python: `tpdiff_jax.open_run`."""

import pathlib
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tpdiff_jax.checks import as_tuple, check_range, whole_number
from tpdiff_jax.devices.compilation_cache import reopen_compilation_cache
from tpdiff_jax.experiment.specs import MAX_SEED
from tpdiff_jax.files.media import checked_video, to_uint8
from tpdiff_jax.generation import from_checkpoint
from tpdiff_jax.generation.from_checkpoint import GenerateFlags, OpenedRun
from tpdiff_jax.generation.prompts import SampleFlags
from tpdiff_jax.generation.pyramid_text import read_pyramid
from tpdiff_jax.generation.requested_videos import request_videos
from tpdiff_jax.generation.sample_files import SampleWriter, open_decoder
from tpdiff_jax.generation.sampler import Sampler


class SamplingRun:
    """A trained run, opened to be sampled from; what `tpdiff_jax.open_run` returns.

    Attributes:
        opened: the experiment and its parameters, for everything else.
    """

    def __init__(self, opened: OpenedRun) -> None:
        self.opened = opened
        self._ways: dict[str, tuple[OpenedRun, Sampler]] = {}  # by the pyramid's fields
        self._made: list[tuple[weakref.ref[np.ndarray], Sequence[str]]] = []

    @property
    def step(self) -> int:
        """Completed steps of the checkpoint."""
        return self.opened.step

    @property
    def fps(self) -> float:
        """Frames per second of the videos."""
        return self.opened.experiment.dataset.fps

    def sample(
        self,
        *,
        labels: Sequence[int | str] = (),
        captions: Sequence[str] = (),
        num_videos: int | None = None,
        seed: int | None = None,
        text_weights: str | pathlib.Path = "",
        pyramid: str | Mapping[str, Any] | Sequence[Any] | None = None,
    ) -> np.ndarray:
        """Generate videos; programs are kept for further calls, one for each pyramid.

        Args:
            labels: one a video, as 3 or, for several digits, "3-7"; for data with labels.
            captions: one a video.
            num_videos: how many; by default one a label or caption, else the config's number.
            seed: 0 to 2**32 - 1; the same seed and request give the same video; by default the
                config's.
            text_weights: folder of the text encoder, for captions of prepared clips.
            pyramid: another one than the run was trained with, as `--pyramid`: strides, as in
                (4, 2, 1), or fields by name, as in {"strides": (4, 2, 1), "upsample": "linear"}.

        Returns:
            uint8 [n, f, h, w, c], c = 1 (grey) or 3.

        Raises:
            ValueError: when an argument is of another kind, what is asked for does not fit the run,
                its network was trained for its own stages alone and another pyramid is asked for,
                or its videos are latents and `open_run` was given no `video_weights`.
        """
        labels = as_tuple("labels", labels, "a list with one entry a video")
        captions = as_tuple("captions", captions, "a list of texts")
        number, seed = _number_of_videos(num_videos), _seed(seed)
        opened, sampler = self._way(pyramid)
        experiment, spec = opened.experiment, opened.experiment.sample
        decode = open_decoder(experiment.dataset, spec.video_weights)
        if decode is None:
            raise ValueError("open_run needs video_weights: the run generates latents")
        flags = SampleFlags(
            labels=tuple(map(str, labels)), captions=captions, text_weights=str(text_weights)
        )
        asked = request_videos(
            opened,
            flags,
            num_videos=number,
            seed=spec.seed if seed is None else seed,
            sampler=sampler,
        )
        videos = np.concatenate([to_uint8(decode(videos)) for videos, _ in asked.batches()])
        self._made = [(made, shown) for made, shown in self._made if made() is not None]
        self._made.append((weakref.ref(videos), asked.captions))
        return videos

    def _way(
        self, pyramid: str | Mapping[str, Any] | Sequence[Any] | None
    ) -> tuple[OpenedRun, Sampler]:
        """The run as it is sampled through a pyramid, and the sampler that has compiled it."""
        name = "" if pyramid is None else repr(sorted(read_pyramid(pyramid).items()))
        if name not in self._ways:
            opened = self.opened
            if pyramid is not None:
                opened = from_checkpoint.through_pyramid(opened, pyramid)
            self._ways[name] = opened, Sampler(opened.experiment)
        return self._ways[name]

    def save(
        self,
        videos: np.ndarray,
        folder: str | pathlib.Path,
        *,
        captions: Sequence[str] | None = None,
    ) -> None:
        """Write videos as MP4 files and a grid, under the names that `--mode=sample` gives them.

        Args:
            videos: uint8 [n, f, h, w, c], as `sample` returns them.
            folder: made when it is missing; files of the same names are replaced.
            captions: what each shows, a part of its file's name. None: for what this run's `sample`
                returned, what was asked for; for other arrays nothing, and the names are numbers.

        Raises:
            ValueError: for another number of captions than of videos, or arrays that are no videos.
        """
        checked_video(videos, num_axes=5)
        if captions is None:
            captions = next((shown for made, shown in self._made if made() is videos), ())
        elif len(captions) != len(videos):
            raise ValueError(f"captions has {len(captions)} entries for {len(videos)} videos")
        writer = SampleWriter(pathlib.Path(folder), self.fps, lambda pixels: pixels / 127.5 - 1.0)
        writer.write(videos, captions)
        writer.finish()


def open_sampling_run(
    workdir: str | pathlib.Path,
    *,
    step: int | None = None,
    compilation_cache: str | pathlib.Path | None = None,
    **overrides: Any,
) -> SamplingRun:
    """Open a run to sample from it; known as `tpdiff_jax.open_run`.

        run = tpdiff_jax.open_run("runs/flow")
        videos = run.sample(labels=[3, 1, 4])
        run.save(videos, "clips")

    Args:
        workdir: a folder that training has made.
        step: checkpoint to read; None takes the newest that can be read.
        compilation_cache: folder for compiled programs, so that the next process need not compile
            them, or "off"; JAX has one for the whole process. None takes the folder that commands
            take, unless JAX has been told of one, or to keep nothing.
        **overrides: as the flags of `--mode=sample`: `guidance_scale`, a number or one a stage,
            `steps_per_stage`, `pyramid`, `video_weights`, `bucket`, `adapter`, `adapter_scale`.

    Returns:
        The run, with the moving average of the parameters.

    Raises:
        ValueError: when the folder is no run, an override is unknown, no checkpoint can be read or
            the folder of compiled programs cannot be made.
    """
    if unknown := set(overrides) - set(GenerateFlags._fields):
        known = ", ".join(GenerateFlags._fields)
        raise ValueError(
            f"open_run has no argument {min(unknown)!r}; allowed: step, compilation_cache, {known}"
        )
    for name in ("guidance_scale", "steps_per_stage"):
        if (value := overrides.get(name)) is not None:
            values = value.split(",") if isinstance(value, str) else np.atleast_1d(value)
            overrides[name] = [str(number) for number in values]
    overrides["num_videos"] = _number_of_videos(overrides.get("num_videos"))
    overrides["seed"] = _seed(overrides.get("seed"))
    for name in ("video_weights", "adapter", "data_folder"):
        if overrides.get(name) is not None:
            overrides[name] = str(overrides[name])
    flags = GenerateFlags(**overrides)
    reopen_compilation_cache(None if compilation_cache is None else str(compilation_cache))
    return SamplingRun(from_checkpoint.open_run(pathlib.Path(workdir), step=step, overrides=flags))


def _number_of_videos(given: object) -> int | None:
    return None if given is None else whole_number("num_videos", given)


def _seed(given: object) -> int | None:
    if given is None:
        return None
    seed = whole_number("seed", given, at_least=0)
    check_range("seed", seed, 0, MAX_SEED)
    return seed
