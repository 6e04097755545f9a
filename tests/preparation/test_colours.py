"""Colours of clips are the standards', whatever a video's pixel format, range and matrix.

Expected values are worked out in numpy from the code values that the file holds.
"""

import numpy as np
import pytest

from tests.preparation.colour_files import (
    MATRIX_CODES,
    PATCHES,
    patch_plane,
    read_patches,
    to_codes,
    write_patches,
    write_planes,
)

ROUNDING = 0.52  # of 255: an exact value is at most 0.5 from a whole number
STORED, REDUCED = (96, 288), (32, 96)
CHROMA = {"420": (2, 2), "422": (1, 2), "444": (1, 1), "440": (2, 1), "411": (1, 4), "410": (4, 4)}


@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020", "fcc", "smpte240m"])
@pytest.mark.parametrize("is_full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize(
    "pix_fmt",
    ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le"],
)
def test_ramps_and_patches_have_the_standards_colours(tmp_path, pix_fmt, is_full, matrix):
    """At stored size and resized. White is 255 and black 0; 4:2:0 was 1.8 levels dark."""
    bits = 10 if pix_fmt.endswith("10le") else 8
    codes, exact = to_codes(PATCHES, matrix, bits, is_full)
    path = write_patches(
        tmp_path / "a.mp4", codes, pix_fmt=pix_fmt, chroma=CHROMA[pix_fmt[3:6]],
        tags={"colorspace": MATRIX_CODES[matrix], "color_range": 2 if is_full else 1,
              "color_primaries": 1, "color_trc": 1},
    )  # fmt: skip
    for size in (STORED, REDUCED):
        found = read_patches(path, len(PATCHES), size)
        np.testing.assert_allclose(found, 255 * exact, atol=ROUNDING)
        assert found[0].tolist() == [0, 0, 0] and found[4].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    ("pix_fmt", "bits"),
    [
        ("yuv411p", 8), ("yuv410p", 8), ("yuv440p", 8), ("yuv420p9le", 9), ("yuv422p12le", 12),
        ("yuv444p16le", 16), ("yuv440p10le", 10),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_full", [False, True], ids=["limited", "full"])
def test_rarer_planar_formats(tmp_path, pix_fmt, bits, is_full):
    codes, exact = to_codes(PATCHES, "bt709", bits, is_full)
    path = write_patches(
        tmp_path / "a.mkv", codes, codec="ffv1", pix_fmt=pix_fmt, chroma=CHROMA[pix_fmt[3:6]],
        options={"strict": "-2"},
        tags={"colorspace": 1, "color_range": 2 if is_full else 1},
    )  # fmt: skip
    for size in (STORED, REDUCED):
        found = read_patches(path, len(PATCHES), size)
        np.testing.assert_allclose(found, 255 * exact, atol=ROUNDING)


@pytest.mark.parametrize(
    ("size", "matrix"),
    [
        ((534, 1280), "bt709"),  # by its columns, below 720 rows
        ((578, 1024), "bt709"),  # by its rows
        ((720, 576), "bt709"),
        ((576, 1278), "bt601"),
        ((480, 854), "bt601"),
        ((96, 288), "bt601"),
    ],
)
def test_untagged_video_has_the_matrix_that_players_take(tmp_path, size, matrix):
    """The other matrix is up to 28 levels off."""
    codes, exact = to_codes(PATCHES, matrix, 8, False)
    path = write_patches(tmp_path / "a.mp4", codes, size=size)
    small = (size[0] // 4, size[1] // 4)
    found = read_patches(path, len(PATCHES), small)
    np.testing.assert_allclose(found, 255 * exact, atol=ROUNDING)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "bits"),
    [
        ("a.mkv", "libx264rgb", "bgr24", 8),
        ("a.mkv", "ffv1", "gbrp10le", 10),
        ("a.mkv", "ffv1", "gbrp16le", 16),
        ("a.mkv", "ffv1", "bgr0", 8),
        ("a.mov", "qtrle", "rgb24", 8),
        ("a.avi", "rawvideo", "bgr24", 8),
        ("a.avi", "utvideo", "gbrp", 8),
        ("a.webm", "libvpx-vp9", "gbrp", 8),
    ],
)
def test_rgb_codecs_keep_their_values(tmp_path, name, codec, pix_fmt, bits):
    highest = 2**bits - 1
    codes = np.rint(PATCHES * highest).astype(int)
    order = [pix_fmt.index(c) for c in "rgb"]
    stored = np.zeros((len(codes), 3 + pix_fmt.endswith("0")), int)
    stored[:, order] = codes
    planes = [patch_plane(stored[:, i], *STORED) for i in range(stored.shape[1])]
    if not pix_fmt.startswith("gbrp"):
        planes = [np.stack(planes, -1)]
    options = {"lossless": "1"} if codec == "libvpx-vp9" else None
    path = write_planes(
        tmp_path / name, planes, STORED, codec=codec, pix_fmt=pix_fmt, options=options
    )
    for size in (STORED, REDUCED):
        found = read_patches(path, len(codes), size)
        np.testing.assert_allclose(found, 255 * codes / highest, atol=ROUNDING)


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "bits", "tag"),
    [
        ("ffv1", "gray", 8, 0), ("ffv1", "gray", 8, 1), ("ffv1", "gray", 8, 2),
        ("ffv1", "gray10le", 10, 0), ("ffv1", "gray10le", 10, 1), ("ffv1", "gray16le", 16, 0),
        ("libx265", "gray", 8, 1), ("libx265", "gray", 8, 2), ("libx264", "gray", 8, 2),
    ],
)  # fmt: skip
def test_grey_is_read_in_the_range_that_it_states(tmp_path, codec, pix_fmt, bits, tag):
    """Untagged grey is full range, as the codecs of that format store it."""
    codes, exact = to_codes(PATCHES[:5], "bt709", bits, tag != 1)
    options = {"x265-params": "lossless=1:log-level=none"} if codec == "libx265" else None
    path = write_planes(
        tmp_path / "a.mkv", [patch_plane(codes[:, 0], *STORED)], STORED,
        codec=codec, pix_fmt=pix_fmt, options=options, tags={"color_range": tag},
    )  # fmt: skip
    for size in (STORED, REDUCED):
        found = read_patches(path, 5, size)
        np.testing.assert_allclose(found, 255 * exact, atol=ROUNDING)


@pytest.mark.parametrize("pix_fmt", ["uyvy422", "yuyv422"])
def test_packed_yuv(tmp_path, pix_fmt):
    codes, exact = to_codes(PATCHES, "bt601", 8, False)
    luma, blue, red = (patch_plane(codes[:, i], *STORED) for i in range(3))
    pair = {"y": luma.reshape(96, 144, 2), "u": blue[:, ::2, None], "v": red[:, ::2, None]}
    order = [pair["u"], pair["y"][..., :1], pair["v"], pair["y"][..., 1:]]
    order = order if pix_fmt == "uyvy422" else [order[i] for i in (1, 0, 3, 2)]
    packed = np.concatenate(order, -1)
    path = write_planes(
        tmp_path / "a.mov", [packed], STORED, codec="rawvideo", pix_fmt=pix_fmt, options={}
    )
    np.testing.assert_allclose(read_patches(path, len(codes)), 255 * exact, atol=ROUNDING)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [("a.mov", "qtrle", "argb"), ("a.mov", "png", "rgba"), ("a.mkv", "ffv1", "yuva444p"),
     ("a.mkv", "ffv1", "yuva420p"), ("a.mkv", "ffv1", "bgra")],
)  # fmt: skip
def test_transparent_parts_are_black(tmp_path, name, codec, pix_fmt):
    """Opaque, half and fully transparent: white, grey of half the value, black."""
    alpha = patch_plane(np.array([255, 128, 0]), *STORED)
    white = np.full(STORED, 255)
    if pix_fmt.startswith("yuva"):
        half = 2 if pix_fmt == "yuva420p" else 1
        neutral = np.full((STORED[0] // half, STORED[1] // half), 128)
        planes = [np.full(STORED, 235), neutral, neutral, alpha]
    else:
        order = {"a": alpha} | dict.fromkeys("rgb", white)
        planes = [np.stack([order[c] for c in pix_fmt], -1)]
    path = write_planes(
        tmp_path / name, planes, STORED, codec=codec, pix_fmt=pix_fmt,
        tags={"color_range": 1} if pix_fmt.startswith("yuva") else None,
    )  # fmt: skip
    found = read_patches(path, 3)
    np.testing.assert_allclose(found, np.array([[255], [128], [0]]).repeat(3, 1), atol=1)
