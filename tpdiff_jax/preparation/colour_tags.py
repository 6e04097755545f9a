"""What a frame's colour tags mean: which matrix, range, primaries and transfer curve to undo.

The codes are those of ITU-T H.273, which containers and codecs share. A tag that is missing or
reserved is filled in as players do: the matrix from the frame's size, primaries from the matrix,
an SDR curve; with an HDR curve both are BT.2020's.

Standard-definition primaries (BT.601's two, SMPTE 240M, EBU 3213) are taken for BT.709's, and all
SDR curves for one another, as on a display without colour management. Wider gamuts, HDR and
scene-linear or logarithmic curves are converted by `colour_maths`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from tpdiff_jax.clips.bad_clips import BadClipError

UNTAGGED = (0, 2, 3)  # reserved, unspecified, reserved
BT709, BT601, BT2020, YCGCO = 1, 6, 9, 8
LUMA_WEIGHTS = {  # matrix -> share of red and of blue in the luma
    BT709: (0.2126, 0.0722),
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.601, 625 lines
    BT601: (0.299, 0.114),  # BT.601, 525 lines
    7: (0.212, 0.087),  # SMPTE 240M
    BT2020: (0.2627, 0.0593),  # non-constant luminance
}
STANDARD_PRIMARIES = (BT709, 5, 6, 7, 22)  # BT.709, BT.470BG, SMPTE 170M and 240M, EBU 3213
D65, WHITE_C, WHITE_DCI = (0.3127, 0.3290), (0.310, 0.316), (0.314, 0.351)
WIDE_PRIMARIES = {  # -> chromaticities of red, green, blue and white
    4: ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), WHITE_C),  # BT.470 M, NTSC of 1953
    8: ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), WHITE_C),  # film
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), D65),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), WHITE_DCI),  # DCI-P3
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65),  # Display P3
}
# BT.709, gammas 2.2 and 2.8, SMPTE 170M and 240M, xvYCC, BT.1361, sRGB, BT.2020 in 10 and 12 bits
SDR_TRANSFERS = (BT709, 4, 5, 6, 7, 11, 12, 13, 14, 15)
LINEAR, LOG, LOG_SQRT, PQ, SMPTE428, HLG = 8, 9, 10, 16, 17, 18
OTHER_TRANSFERS = (LINEAR, LOG, LOG_SQRT, PQ, SMPTE428, HLG)
HD_WIDTH, SD_HEIGHT = 1280, 576
LIMITED, FULL = 1, 2


class Colour(NamedTuple):
    """How code values of a frame become colours.

    Attributes:
        matrix: key of `LUMA_WEIGHTS`, `YCGCO`, or None for RGB and grey.
        is_full_range: whether black is 0 and white the highest code.
        primaries: key of `WIDE_PRIMARIES`, or BT709 for those that are taken as they are.
        transfer: one of `OTHER_TRANSFERS`, or BT709 for all SDR curves.
    """

    matrix: int | None
    is_full_range: bool
    primaries: int
    transfer: int

    @property
    def is_standard(self) -> bool:
        """Whether R'G'B' is that of BT.709 already."""
        return (self.primaries, self.transfer) == (BT709, BT709)


def read_colour(frame: Any, stated: Sequence[int]) -> Colour:
    """Resolve the tags of a decoded frame.

    Args:
        frame: as the decoder hands it out.
        stated: matrix, primaries and transfer as the container has them, for frames that have none:
            HEVC's decoder forgets them where the stream itself is silent.

    Returns:
        What to undo.

    Raises:
        BadClipError: unknown_colours, where undoing it is not implemented.
    """
    own = (int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc))
    tags = [two if one in UNTAGGED else one for one, two in zip(own, stated, strict=True)]
    matrix, primaries, transfer = (BT709 if tag in UNTAGGED else tag for tag in tags)
    components = len(frame.format.components)
    if frame.format.name.startswith(("xyz", "bayer")):
        raise BadClipError("unknown_colours", f"pixels in {frame.format.name}")
    if tags[0] in UNTAGGED and not is_rgb(frame):
        # As players guess; the two matrices are up to 28 levels apart.
        is_hd = frame.width >= HD_WIDTH or frame.height > SD_HEIGHT
        matrix = BT2020 if transfer in (PQ, HLG) else BT709 if is_hd else BT601
    if tags[1] in UNTAGGED and (tags[0] == BT2020 or transfer in (PQ, HLG)):
        primaries = BT2020
    is_coloured = not is_rgb(frame) and components > 2  # two are grey and alpha
    for what, code, known in (
        ("matrix", matrix if is_coloured else BT709, (*LUMA_WEIGHTS, YCGCO)),
        ("primaries", primaries, (*STANDARD_PRIMARIES, *WIDE_PRIMARIES)),
        ("transfer", transfer, (*SDR_TRANSFERS, *OTHER_TRANSFERS)),
    ):
        if code not in known:
            raise BadClipError("unknown_colours", f"{what} {code} of ITU-T H.273")
    return Colour(
        matrix=matrix if is_coloured else None,
        is_full_range=is_rgb(frame) or _is_full_range(frame, components),
        primaries=BT709 if primaries in STANDARD_PRIMARIES else primaries,
        transfer=BT709 if transfer in SDR_TRANSFERS else transfer,
    )


def is_rgb(frame: Any) -> bool:
    """Whether a frame holds red, green and blue, or a palette of them."""
    return bool(frame.format.is_rgb or frame.format.has_palette)


def _is_full_range(frame: Any, components: int) -> bool:
    """As tagged; untagged YUV is limited, untagged grey full, as its codecs mean it."""
    if frame.format.name.startswith("yuvj") or frame.color_range == FULL:
        return True
    return bool(frame.color_range != LIMITED and components < 3)
