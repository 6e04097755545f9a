"""Figures of clips that nothing is known about: generated ones against held-out ones.

    fvd              I3D's logits (evals/fvd.py), where `measure.fvd_weights` names a file
    statistics       24 fixed statistics (evals/video_statistics.py), needs no network
    clipsim          CLIP's cosine with the captions, where `measure.clip_folder` names a folder;
                     clips without a caption are left out of it

The references go through the same code: other real clips ("ceiling"; for a Frechet distance the
floor that the sample size sets), and these frozen at their first frame and with their frames
shuffled. CLIPSIM's ceiling is that of the captions' own clips; "others" is what they reach with
each other's captions. All sets are equally large.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tpdiff_jax.checks import check_choice, counted
from tpdiff_jax.data import Dataset
from tpdiff_jax.evals.clipsim import ClipScorer, clipsim
from tpdiff_jax.evals.fvd import RESIZE_KERNELS, frechet_video_distance, i3d_features
from tpdiff_jax.evals.i3d import MIN_I3D_FRAMES, NUM_LOGITS
from tpdiff_jax.evals.i3d_weights import I3DWeights, load_i3d
from tpdiff_jax.evals.measures import Evaluation, Metric
from tpdiff_jax.evals.video_statistics import (
    MIN_STATISTICS_FRAMES,
    MIN_STATISTICS_SIDE,
    NUM_STATISTICS,
    statistics_distance,
    video_statistics,
)
from tpdiff_jax.files.media import to_uint8
from tpdiff_jax.measures.compared_sets import choose_sets, notes_on_sets

Frames = NDArray[np.uint8]
Videos = NDArray[np.float32]
_CHANNELS = 3
_CHUNK = 16  # clips whose frames are held at once
_SHUFFLE_SEED = 0

CLIP_METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("fvd", "lower", "1", "Frechet distance in I3D's 400 logits"),
        Metric("statistics", "lower", "1", "Frechet distance in 24 fixed statistics of a clip"),
        Metric("clipsim", "higher", "1", "cosine of frames and caption, times 100"),
    )
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasureSpec:
    """Fields of the config group `measure`; a config may leave them out.

    Args:
        fvd_weights: file that `tpdiff_jax.evals.convert_i3d` has written; "" measures no FVD.
        fvd_resize: bilinear sampling to 224 x 224, "half_pixel" or "legacy".
        clip_folder: local folder of a CLIP model; "" measures no CLIPSIM.
        real_clips: folder of other prepared clips to compare with, as of MSR-VTT; "" takes what
            the run has held out.

    Raises:
        ValueError: for an unknown choice, or a path that does not exist.
    """

    fvd_weights: str = ""
    fvd_resize: str = "half_pixel"
    clip_folder: str = ""
    real_clips: str = ""

    def __post_init__(self) -> None:
        check_choice("measure.fvd_resize", self.fvd_resize, RESIZE_KERNELS)
        if self.fvd_weights and not pathlib.Path(self.fvd_weights).is_file():
            raise ValueError(f"measure.fvd_weights={self.fvd_weights!r} is not a file")
        for name in ("clip_folder", "real_clips"):
            if (place := getattr(self, name)) and not pathlib.Path(place).is_dir():
                raise ValueError(f"measure.{name}={place!r} is not a folder")


class Features(NamedTuple):
    """What the distances need to know of n clips; `logits` is None without FVD."""

    statistics: NDArray[np.float64]
    logits: NDArray[np.float32] | None


class ClipMeasures:
    """Measures sets of clips against the same real ones; see `evals.Measures`."""

    def __init__(
        self,
        spec: MeasureSpec,
        dataset: Dataset,
        num_clips: int,
        decode: Callable[[Videos], Videos] | None = None,
    ) -> None:
        """Prepare; networks are read and real clips measured when they are first needed.

        Args:
            spec: what to measure with.
            dataset: prepared clips.
            num_clips: size of every set; fewer where the data set does not hold as many.
            decode: latents [n, f, h, w, c] -> pixels [n, F, H, W, 3] in [-1, 1]; without it
                latents cannot be measured, pixels need none.

        Raises:
            ValueError: when clips are too short for FVD.
        """
        if spec.fvd_weights and dataset.is_pixels and dataset.num_frames < MIN_I3D_FRAMES:
            raise ValueError(
                f"measure.fvd_weights must be '' for clips of {dataset.num_frames} frames; I3D "
                f"needs {MIN_I3D_FRAMES}"
            )
        self._spec, self._dataset = spec, dataset
        self._decode = decode
        self._num_wanted = num_clips
        self._num_test, num_train = (dataset.num_clips(split) for split in ("test", "train"))
        self._sets = choose_sets(self._num_test, num_train, num_clips)
        self._has_captions = bool(dataset.null_cond)

    @property
    def num_videos(self) -> int:
        """Clips in every set, generated or real."""
        return self._sets.num_clips

    @property
    def is_possible(self) -> bool:
        """Whether there are enough clips, and large enough pixels to be had of them."""
        return not self._obstacle

    @property
    def notes(self) -> Sequence[str]:
        """What a reader of the figures has to know: training clips among the sets, small sets."""
        if self._obstacle:
            return [self._obstacle]
        notes = self._notes_on_sets()
        if self._spec.fvd_weights and not self._measures_fvd:
            notes.append(
                f"fvd is not measured: clips have {counted(self._clip_shape[0], 'frame')}, and "
                f"I3D needs {MIN_I3D_FRAMES}"
            )
        return notes + self._notes_on_captions()

    @functools.cached_property
    def _obstacle(self) -> str:
        """Why nothing is measured; "" where something is. Of latents one clip is decoded."""
        if not self._dataset.is_pixels and self._decode is None:
            return "nothing is measured: clips are latents, and no autoencoder was named"
        if self.num_videos < 2:
            return self._notes_on_sets()[0]
        frames, *sides, channels = self._clip_shape
        if (
            frames < MIN_STATISTICS_FRAMES
            or min(sides) < MIN_STATISTICS_SIDE
            or channels != _CHANNELS
        ):
            return (
                f"nothing is measured: clips have [f, h, w, c] {list(self._clip_shape)}, and "
                f"{MIN_STATISTICS_FRAMES} frames of {MIN_STATISTICS_SIDE} pixels a side or more "
                f"are needed, in {_CHANNELS} channels"
            )
        return ""

    def _notes_on_captions(self) -> list[str]:
        if not self._spec.clip_folder:
            return []
        if not self._has_captions:
            return ["clipsim is not measured: the run is trained without captions"]
        n, captioned = self.num_videos, len(self._captioned)
        if not self._measures_clipsim:
            return [
                f"clipsim is not measured: of {n} clips {captioned} "
                f"{'has' if captioned == 1 else 'have'} a caption, and two are needed"
            ]
        if captioned < n:
            return [f"clipsim is that of {captioned} clips of {n}: the others have no caption"]
        return []

    def _notes_on_sets(self) -> list[str]:
        dimensions = {"statistics": NUM_STATISTICS}
        if self.num_videos >= 2 and self._measures_fvd:
            dimensions["fvd"] = NUM_LOGITS
        return notes_on_sets(self._sets, self._num_test, self._num_wanted, dimensions)

    def conditions(self) -> dict[str, np.ndarray]:
        """Return what the real clips show, and generated ones are to: name -> [n, ...]."""
        split, first = self._sets.real
        clips = [self._dataset.clip(split, 0, first + i) for i in range(self.num_videos)]
        return {name: np.stack([c[name] for c in clips]) for name in self._dataset.cond_shapes}

    def __call__(self, videos: Videos) -> Evaluation:
        """Return figures of generated videos, references and what was measured how.

        Args:
            videos: generated from `conditions`, in their order, [n, f, h, w, c].

        Raises:
            ValueError: for another number of videos than every set has.
        """
        if len(videos) != self.num_videos:
            raise ValueError(
                f"{len(videos)} videos; every set that is compared has {self.num_videos}"
            )
        frames = np.concatenate(
            [self._frames(videos[i : i + _CHUNK]) for i in range(0, len(videos), _CHUNK)]
        )
        chunks = (frames[i : i + _CHUNK] for i in range(0, len(frames), _CHUNK))
        metrics = self._distances(joined(map(self._features, chunks)))
        if self._measures_clipsim:
            metrics["clipsim"] = self._clipsim(frames, self._captions_shown)
        return {
            "metrics": metrics,
            "references": self._references,
            "metric_info": {name: CLIP_METRICS[name]._asdict() for name in metrics},
            "measurement": self.facts(),
        }

    def facts(self) -> dict[str, Any]:
        """Return everything that has to be equal for two distances to be comparable."""
        dataset = self._dataset
        num_frames, height, width, _ = self._clip_shape
        facts: dict[str, Any] = {
            "clips_in_every_set": self.num_videos,
            "real_clips": "{}, from {}".format(*self._sets.real),
            "other_real_clips": "{}, from {}".format(*self._sets.other),
            "frames": num_frames,
            "fps": dataset.fps,
            "frame_size": f"{height}x{width}",
            "crop": "largest centred, by --mode=prepare",
            "codec": "none: frames are measured as generated, in 8 bits",
            **{f"data_{name}": value for name, value in dataset.fingerprint().items()},
            "shuffle_seed": _SHUFFLE_SEED,
        }
        if self._weights is not None:
            facts |= {"fvd_resize": self._spec.fvd_resize, "fvd_weights": self._weights.sha256}
            facts |= {f"fvd_{name}": value for name, value in self._weights.source.items()}
        if self._measures_clipsim:
            facts["clip_weights"] = self._scorer.sha256
        return facts

    @functools.cached_property
    def _weights(self) -> I3DWeights | None:
        return load_i3d(pathlib.Path(self._spec.fvd_weights)) if self._measures_fvd else None

    @property
    def _measures_fvd(self) -> bool:
        """Not of clips that turn out too short once they are decoded."""
        return bool(self._spec.fvd_weights) and self._clip_shape[0] >= MIN_I3D_FRAMES

    @property
    def _measures_clipsim(self) -> bool:
        """Of captions that the run is trained on, which exist for two clips or more."""
        is_asked = bool(self._spec.clip_folder) and self._has_captions
        return is_asked and len(self._captioned) >= 2

    @property
    def _captioned(self) -> list[int]:
        """Clips of the set that have a caption."""
        return [i for i, caption in enumerate(self._captions) if caption]

    @property
    def _captions_shown(self) -> list[str]:
        return [self._captions[i] for i in self._captioned]

    @functools.cached_property
    def _scorer(self) -> ClipScorer:
        return ClipScorer(pathlib.Path(self._spec.clip_folder))

    def _clipsim(self, clips: Frames, captions: Sequence[str]) -> float:
        """Of the set's clips, those without a caption left out, with a caption each."""
        return clipsim(self._scorer.similarities, clips[self._captioned], captions)

    @functools.cached_property
    def _clip_shape(self) -> tuple[int, ...]:
        """[f, h, w, c] of a clip as measured: latents are decoded."""
        if self._dataset.is_pixels:
            return (self._dataset.num_frames, *self._dataset.frame_shape)
        split, first = self._sets.real
        return self._frames(self._dataset.clip(split, 0, first)["video"][None]).shape[1:]

    def _frames(self, videos: Videos) -> Frames:
        if self._decode is not None and not self._dataset.is_pixels:
            videos = self._decode(videos)
        return to_uint8(videos)

    def _chunks(self, split: str, first: int) -> Iterator[Frames]:
        for start in range(first, first + self.num_videos, _CHUNK):
            stop = min(start + _CHUNK, first + self.num_videos)
            clips = [self._dataset.clip(split, 0, index)["video"] for index in range(start, stop)]
            yield self._frames(np.stack(clips))

    @functools.cached_property
    def _captions(self) -> list[str]:
        split, first = self._sets.real
        indices = range(first, first + self.num_videos)
        return [self._dataset.clip(split, 0, index)["caption"] for index in indices]

    def _features(self, clips: Frames) -> Features:
        statistics, weights = video_statistics(clips), self._weights
        if weights is None:
            return Features(statistics, None)
        return Features(statistics, i3d_features(weights, clips, kernel=self._spec.fvd_resize))

    @functools.cached_property
    def _real(self) -> Features:
        return joined(map(self._features, self._chunks(*self._sets.real)))

    def _distances(self, features: Features) -> dict[str, float]:
        out, real = {}, self._real
        if features.logits is not None and real.logits is not None:
            out["fvd"] = frechet_video_distance(features.logits, real.logits)
        scale = real.statistics
        out["statistics"] = statistics_distance(features.statistics, real.statistics, scale)
        return out

    @functools.cached_property
    def _references(self) -> dict[str, dict[str, float]]:
        versions: Mapping[str, Callable[[Frames], Frames]] = {
            "ceiling": lambda clips: clips,
            "frozen": lambda clips: np.repeat(clips[:, :1], clips.shape[1], axis=1),
            "shuffled": _shuffled,
        }
        features: dict[str, list[Features]] = {name: [] for name in versions}
        for clips in self._chunks(*self._sets.other):
            for name, change in versions.items():
                features[name].append(self._features(change(clips)))
        references = {name: self._distances(joined(parts)) for name, parts in features.items()}
        if self._measures_clipsim:
            clips = np.concatenate(list(self._chunks(*self._sets.real)))
            captions = self._captions_shown
            others = captions[-1:] + captions[:-1]
            references["ceiling"]["clipsim"] = self._clipsim(clips, captions)
            references["others"] = {"clipsim": self._clipsim(clips, others)}
        return references


def joined(parts: Iterable[Features]) -> Features:
    """Return the features of all clips of the parts, in their order."""
    statistics, logits = zip(*parts, strict=True)
    all_logits = None if logits[0] is None else np.concatenate(logits)
    return Features(np.concatenate(statistics), all_logits)


def _shuffled(clips: Frames) -> Frames:
    """Every clip with its frames in a random order of its own."""
    rng = np.random.default_rng(_SHUFFLE_SEED)
    n, num_frames = clips.shape[:2]
    order = rng.permuted(np.tile(np.arange(num_frames), (n, 1)), axis=1)
    return clips[np.arange(n)[:, None], order]
