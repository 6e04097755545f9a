"""A Frechet distance for any videos that needs no trained network: 24 statistics of a clip.

    appearance  12   mean and spread of lightness and two colour differences; edges at three
                     scales; where the light is (up-down, left-right, centre-border)
    motion      12   size of first and second differences in time at three scales each; their
                     variation over the clip; change from first to last frame; whether successive
                     changes point the same way; even against odd frames; share of the change that
                     alternates from frame to frame

Sizes enter as logarithms. Each statistic is centred and scaled by its mean and standard deviation
over the real clips that are compared with, and clipped at `LIMIT`, so that one garbage clip cannot
decide the figure. It sees blur, noise, flicker, pops at a stage jump, frozen and shuffled frames;
it knows nothing of objects. With 24 dimensions some hundred clips suffice.
"""

import numpy as np
from numpy.typing import NDArray

from tpdiff_jax.evals.frechet import sample_frechet_distance

StatisticsArray = NDArray[np.float64]
SCALES = (1, 2, 4)  # pixels averaged along each axis
MIN_STATISTICS_FRAMES = 3
MIN_STATISTICS_SIDE = 2 * max(SCALES)
NUM_STATISTICS = 24
LIMIT = 10.0
_TINY = 1e-3  # of the range of 2: below it, sizes are rounding of 8-bit frames
_MIN_SCALE = 0.05


def video_statistics(clips: NDArray[np.uint8]) -> StatisticsArray:
    """Return the statistics of clips.

    Args:
        clips: uint8 [n, f, h, w, 3], f >= 3, h and w >= 8.

    Returns:
        [n, 24], not yet scaled.

    Raises:
        ValueError: for other shapes.
    """
    is_right = clips.ndim == 5 and clips.shape[-1] == 3 and clips.shape[1] >= MIN_STATISTICS_FRAMES
    if not is_right or min(clips.shape[2:4]) < MIN_STATISTICS_SIDE:
        raise ValueError(
            f"clips have shape {clips.shape}; allowed: [n, f, h, w, 3] with "
            f"{MIN_STATISTICS_FRAMES} frames of {MIN_STATISTICS_SIDE} pixels a side or more"
        )
    return np.stack([_clip_statistics(clip) for clip in clips])  # one by one: to save memory


def statistics_distance(
    clips: StatisticsArray, real: StatisticsArray, reference: StatisticsArray
) -> float:
    """Return the Frechet distance of two equally large sets in the scaled statistics.

    Args:
        clips: statistics of the clips to measure, [n, 24].
        real: of real clips, [n, 24].
        reference: of the real clips that set centre and scale, [m, 24]; the same for every
            distance that is to be compared.

    Raises:
        ValueError: for sets of unequal size, because the bias depends on it.
    """
    centre, scale = reference.mean(0), np.maximum(reference.std(0), _MIN_SCALE)
    scaled = [np.clip((rows - centre) / scale, -LIMIT, LIMIT) for rows in (clips, real)]
    return sample_frechet_distance(*scaled)


def _clip_statistics(clip: NDArray[np.uint8]) -> StatisticsArray:
    frames = clip.astype(np.float32) / 127.5 - 1.0
    red, green, blue = np.moveaxis(frames, -1, 0)
    light = frames.mean(-1)
    colours = (light, red - green, 0.5 * (red + green) - blue)
    appearance = [c.mean() for c in colours] + [c.std() for c in colours]
    appearance += [_log_size(_edges(_shrink(light, scale))) for scale in SCALES]
    return np.asarray([*appearance, *_layout(light.mean(0)), *_motion(light)], np.float64)


def _layout(picture: NDArray[np.float32]) -> list[float]:
    """Differences of mean lightness: upper and lower, left and right half, centre and border."""
    height, width = picture.shape
    middle = picture[height // 4 : -(height // 4), width // 4 : -(width // 4)]
    return [
        float(picture[: height // 2].mean() - picture[height // 2 :].mean()),
        float(picture[:, : width // 2].mean() - picture[:, width // 2 :].mean()),
        float(middle.mean() - picture.mean()),
    ]


def _motion(light: NDArray[np.float32]) -> list[float]:
    """The twelve statistics of motion of a clip [f, h, w]."""
    out = []
    for scale in SCALES:
        small = _shrink(light, scale)
        out += [_log_size(np.diff(small, axis=0)), _log_size(np.diff(small, 2, axis=0))]
    step = np.diff(_shrink(light, SCALES[1]), axis=0)
    sizes = np.sqrt((step**2).mean((1, 2)))
    power = (step**2).mean()
    agreement = (step[1:] * step[:-1]).mean() / (power + _TINY**2)
    signs = (-1.0) ** np.arange(len(step))[:, None, None]
    energy = (light**2).mean((1, 2))
    return [
        *out,
        float(sizes.std() / (sizes.mean() + _TINY)),
        float(np.log(sizes.max() + _TINY) - np.log(np.median(sizes) + _TINY)),
        _log_size(light[-1] - light[0]),
        float(agreement),
        float(abs(energy[::2].mean() - energy[1::2].mean()) / (energy.mean() + _TINY)),
        float(((step * signs).mean(0) ** 2).mean() / (power + _TINY**2)),
    ]


def _shrink(light: NDArray[np.float32], scale: int) -> NDArray[np.float32]:
    """Means over blocks of scale x scale pixels; a rest at the border is left out."""
    frames, height, width = light.shape
    rows, columns = height // scale, width // scale
    cut = light[:, : rows * scale, : columns * scale]
    return cut.reshape(frames, rows, scale, columns, scale).mean((2, 4))


def _edges(light: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([np.diff(light, axis=axis).ravel() for axis in (1, 2)])


def _log_size(values: NDArray[np.float32]) -> float:
    """Logarithm of the root mean square."""
    return float(np.log(np.sqrt((values.astype(np.float64) ** 2).mean()) + _TINY))
