"""Colours of other standards as R'G'B' of BT.709 for an SDR display. Pure numpy.

    code values -> R'G'B' -> light, 1 = SDR white of 100 cd/m2 -> tone map -> BT.709's primaries
    -> R'G'B' with BT.1886's exponent

SDR curves are undone and made with the same exponent, so that greys keep their code values. HDR
is shown as a display of 1,000 cd/m2 shows it and then brought to 100 cd/m2 with the curve of
BT.2390, applied to the largest of the three components, so that hues stay: diffuse white at
203 cd/m2 becomes 243 of 255, and below 30 cd/m2 nothing changes.

Sources: ITU-R BT.709, BT.1886, BT.2020, BT.2100-2 (PQ, HLG, system gamma 1.2), BT.2390-8 section
5.4.1 (tone curve), ITU-T H.273 (logarithmic and SMPTE 428 curves).
"""

from collections.abc import Sequence

import numpy as np

from tpdiff_jax.preparation.colour_tags import (
    BT709,
    D65,
    HLG,
    LINEAR,
    LOG,
    LOG_SQRT,
    LUMA_WEIGHTS,
    PQ,
    SMPTE428,
    WIDE_PRIMARIES,
    YCGCO,
)

SDR_WHITE, HDR_PEAK, PQ_PEAK = 100.0, 1000.0, 10_000.0  # cd/m2
SDR_EXPONENT = 2.4
PQ_M1, PQ_M2 = 2610 / 16384, 2523 / 4096 * 128
PQ_C1, PQ_C2, PQ_C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
HLG_A, HLG_B, HLG_C = 0.17883277, 0.28466892, 0.55991073
HLG_SYSTEM_GAMMA = 1.2
BT709_PRIMARIES = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), D65)
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def ycbcr_to_rgb(planes: Sequence[np.ndarray], matrix: int) -> list[np.ndarray]:
    """R'G'B' of luma and colour differences.

    Args:
        planes: Y' in [0, 1], C_B and C_R in [-1/2, 1/2], [h, w] each.
        matrix: key of `LUMA_WEIGHTS`, or `YCGCO`.

    Returns:
        Three planes, nominally in [0, 1].
    """
    luma, blue_difference, red_difference = planes
    if matrix == YCGCO:
        green_difference, orange_difference = blue_difference, red_difference
        red = luma - green_difference + orange_difference
        blue = luma - green_difference - orange_difference
        return [red, luma + green_difference, blue]
    red_weight, blue_weight = LUMA_WEIGHTS[matrix]
    red = luma + 2 * (1 - red_weight) * red_difference
    blue = luma + 2 * (1 - blue_weight) * blue_difference
    green = (luma - red_weight * red - blue_weight * blue) / (1 - red_weight - blue_weight)
    return [red, green, blue]


def to_bt709(rgb: np.ndarray, primaries: int, transfer: int) -> np.ndarray:
    """R'G'B' of BT.709 of a colour in other primaries or with another curve.

    Args:
        rgb: R'G'B' as stored, [h, w, 3], nominally in [0, 1].
        primaries: `BT709` or a key of `WIDE_PRIMARIES`.
        transfer: `BT709` or one of `OTHER_TRANSFERS`.

    Returns:
        [h, w, 3] in [0, 1]; what an SDR display cannot show is clipped.
    """
    light = to_light(np.clip(rgb, 0.0, 1.0), transfer)
    if transfer in (PQ, HLG):
        light = tone_map(light)
    if primaries != BT709:
        light = light @ primaries_to_bt709(primaries).T
    return np.clip(light, 0.0, 1.0) ** (1 / SDR_EXPONENT)


def to_light(rgb: np.ndarray, transfer: int) -> np.ndarray:
    """Light that a display shows.

    Args:
        rgb: R'G'B' in [0, 1], [..., 3].
        transfer: `BT709` or one of `OTHER_TRANSFERS`.

    Returns:
        [..., 3], in units of SDR white.
    """
    if transfer == PQ:
        return pq_to_nits(rgb) / SDR_WHITE
    if transfer == HLG:
        scene = np.where(rgb <= 0.5, rgb**2 / 3, (np.exp((rgb - HLG_C) / HLG_A) + HLG_B) / 12)
        red_weight, blue_weight = LUMA_WEIGHTS[9]
        luminance = scene @ np.array([red_weight, 1 - red_weight - blue_weight, blue_weight])
        shown = HDR_PEAK * luminance[..., None] ** (HLG_SYSTEM_GAMMA - 1) * scene
        return shown / SDR_WHITE
    if transfer == LINEAR:
        return rgb
    if transfer in (LOG, LOG_SQRT):
        decades = 2.0 if transfer == LOG else 2.5
        return np.where(rgb > 0, 10 ** (decades * (rgb - 1)), 0.0)
    if transfer == SMPTE428:
        return 52.37 / 48 * rgb**2.6
    return rgb**SDR_EXPONENT


def pq_to_nits(code: np.ndarray) -> np.ndarray:
    """Return the light, in cd/m2, of PQ values in [0, 1]."""
    root = code ** (1 / PQ_M2)
    return PQ_PEAK * (np.maximum(root - PQ_C1, 0) / (PQ_C2 - PQ_C3 * root)) ** (1 / PQ_M1)


def nits_to_pq(nits: np.ndarray) -> np.ndarray:
    """Return the PQ value in [0, 1] of light in cd/m2."""
    power = (np.asarray(nits) / PQ_PEAK) ** PQ_M1
    return ((PQ_C1 + PQ_C2 * power) / (1 + PQ_C3 * power)) ** PQ_M2


def tone_map(light: np.ndarray) -> np.ndarray:
    """Light of an HDR display as an SDR display can show it.

    Args:
        light: in units of SDR white, [..., 3].

    Returns:
        [..., 3]; the largest component is at most 1, ratios between components are kept.

    Source:
        ITU-R BT.2390-8, section 5.4.1, steps 1 to 3, with a black of zero.
    """
    peak = light.max(-1, keepdims=True)
    highest = nits_to_pq(np.array(HDR_PEAK))
    target = nits_to_pq(np.array(SDR_WHITE)) / highest
    knee = 1.5 * target - 0.5
    given = np.minimum(nits_to_pq(peak * SDR_WHITE) / highest, 1.0)
    t = np.maximum(given - knee, 0.0) / (1 - knee)
    rolled = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (-2 * t**3 + 3 * t**2) * target
    )
    shown = pq_to_nits(np.where(given < knee, given, rolled) * highest) / SDR_WHITE
    return light * (shown / np.maximum(peak, 1e-9))


def primaries_to_bt709(primaries: int) -> np.ndarray:
    """Return the matrix from linear RGB in other primaries to BT.709's, white to white, [3, 3]."""
    source, target = _rgb_to_xyz(WIDE_PRIMARIES[primaries]), _rgb_to_xyz(BT709_PRIMARIES)
    white, wanted = (BRADFORD @ matrix.sum(1) for matrix in (source, target))
    adapted = np.linalg.inv(BRADFORD) @ np.diag(wanted / white) @ BRADFORD
    return np.linalg.inv(target) @ adapted @ source


def _rgb_to_xyz(chromaticities: tuple[tuple[float, float], ...]) -> np.ndarray:
    columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in chromaticities]).T
    return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])
