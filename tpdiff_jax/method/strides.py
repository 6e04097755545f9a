"""What a user says of a pyramid's axes, checked: strides, shapes, and a choice for each axis."""

from collections.abc import Sequence

from tpdiff_jax.checks import as_tuple, check_choice, whole_number
from tpdiff_jax.method.axis_matrices import DOWNSAMPLES, UPSAMPLES, UPSAMPLES_SPACE
from tpdiff_jax.method.resampling import Modes
from tpdiff_jax.types import Shape, Strides

AXES = ("time", "height", "width")
STRIDES_ALLOWED = (
    "for each stage a whole number (over time) or three (over time, height, width); along every "
    "axis each a multiple of the next, no stage equal to the one before it, and the last 1, such "
    "as (4, 2, 1), (1,) or ((4, 4, 4), (2, 2, 2), (1, 1, 1))"
)


def stage_strides(
    strides: Sequence[int | Sequence[int]], field: str = "pyramid.strides"
) -> tuple[Strides, ...]:
    """The strides of each stage over time, height and width.

    Args:
        strides: coarsest first, for each stage three numbers, or one that is the stride over
            time: r means (r, 1, 1).
        field: full config name, for the error.

    Returns:
        Three numbers for each stage.

    Raises:
        ValueError: not such a list; along an axis one stride is no multiple of the next; a stage
            that changes nothing; or a last stage that leaves something out.
    """
    refusal = f"{field} is {strides!r}; allowed: {STRIDES_ALLOWED}"
    try:
        stages = tuple(_one_stage(entry) for entry in as_tuple("", strides, ""))
    except ValueError:
        raise ValueError(refusal) from None
    pairs = list(zip(stages[:-1], stages[1:], strict=True))
    is_falling = all(a % b == 0 for pair in pairs for a, b in zip(*pair, strict=True))
    is_new = all(coarse != fine for coarse, fine in pairs)
    if not stages or stages[-1] != (1, 1, 1) or not is_falling or not is_new:
        raise ValueError(refusal)
    return stages


def _one_stage(entry: int | Sequence[int]) -> Strides:
    if not hasattr(entry, "__iter__"):
        return whole_number("", entry), 1, 1
    time, height, width = (whole_number("", stride) for stride in as_tuple("", entry, ""))
    return time, height, width


def check_shape(shape: Sequence[int], largest: Strides) -> Shape:
    """Check that every stage of a pyramid fits a full video of this shape.

    Args:
        shape: frames, height and width of the full video.
        largest: strides of the coarsest stage.

    Returns:
        The shape, as a tuple of plain ints.

    Raises:
        ValueError: not three whole numbers; a number of frames that is neither a multiple of the
            largest stride over time nor one more; a height or width that is no multiple.
    """
    sizes = as_tuple("shape", shape, "three whole numbers: frames, height, width")
    if len(sizes) != len(AXES):
        raise ValueError(f"shape is {shape!r}; allowed: three numbers: frames, height, width")
    frames, *space = (
        whole_number(name, size)
        for name, size in zip(("data.num_frames", "height", "width"), sizes, strict=True)
    )
    if frames % largest[0] not in (0, 1 % largest[0]):
        raise ValueError(
            f"data.num_frames is {frames}; allowed: a multiple of the largest stride over time "
            f"{largest[0]} of pyramid.strides (shorthand: pyramid.frame_strides), or one more "
            "(causal video latents)"
        )
    for name, size, stride in zip(AXES[1:], space, largest[1:], strict=True):
        if size % stride:
            raise ValueError(
                f"{name} (of data.frame_size, or of the clips) is {size}; allowed: a multiple of "
                f"the largest stride over {name} {stride} of pyramid.strides"
            )
    height, width = space
    return frames, height, width


def downsample_modes(mode: str | Sequence[str]) -> Modes:
    """D of each axis.

    Args:
        mode: one word for all axes, or three (time, height, width).

    Returns:
        Three words.

    Raises:
        ValueError: unknown mode, or not one or three.
    """
    time, *space = _three("pyramid.downsample", mode)
    check_choice("pyramid.downsample", time, DOWNSAMPLES)
    for one in space:
        check_choice("pyramid.downsample_space", one, DOWNSAMPLES)
    return time, space[0], space[1]


def upsample_modes(mode: str | Sequence[str], largest: Strides) -> Modes:
    """U of each axis.

    Args:
        mode: one word for all axes, or three (time, height, width).
        largest: strides of the coarsest stage: the one words "nearest_next" and "insert" need
            pooling over time only.

    Returns:
        Three words.

    Raises:
        ValueError: unknown mode, not one or three, or one for height or width that is of time
            only.
    """
    time, *space = _three("pyramid.upsample", mode)
    check_choice("pyramid.upsample", time, UPSAMPLES)
    if mode in ("nearest_next", "insert") and largest[1:] == (1, 1):
        return time, "nearest", "nearest"
    for one in space:
        check_choice("pyramid.upsample_space", one, UPSAMPLES_SPACE)
    return time, space[0], space[1]


def check_modes(downsample: Modes, upsample: Modes) -> None:
    """Refuse an upsampling that does not belong to its downsampling.

    Args:
        downsample: D of each axis.
        upsample: U of each axis.

    Raises:
        ValueError: "dct" one way only, or "insert" of anything but frames.
    """
    if upsample[0] == "insert" and downsample[0] != "stride":
        raise ValueError(
            f"pyramid.upsample is 'insert' with pyramid.downsample {downsample[0]!r}; allowed: "
            "'stride', as it keeps frames"
        )
    for down, up, space in zip(downsample, upsample, ("", "_space", "_space"), strict=True):
        if (down == "dct") != (up == "dct"):
            raise ValueError(
                f"pyramid.upsample{space} is {up!r} with pyramid.downsample{space} {down!r}; "
                "allowed: 'dct' for both or for neither"
            )


def _three(field: str, mode: str | Sequence[str]) -> tuple:
    if isinstance(mode, str):
        return (mode,) * len(AXES)
    modes = as_tuple(field, mode, "one word, or three: for time, height, width")
    if len(modes) != len(AXES):
        raise ValueError(f"{field} is {mode!r}; allowed: one word, or three: for {AXES}")
    return modes
