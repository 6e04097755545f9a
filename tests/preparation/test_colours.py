"""Colours of clips are the standards', whatever a video's format, range, matrix, gamut and curve.

Expected values are worked out in numpy from the code values that the file holds.
"""

import av
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
from tpdiff_jax.clips.bad_clips import BadClipError

ROUNDING = 0.52  # of 255: an exact value is at most 0.5 from a whole number
STORED, REDUCED, CROPPED = (96, 288), (32, 96), (33, 61)
CHROMA = {"420": (2, 2), "422": (1, 2), "444": (1, 1), "440": (2, 1), "411": (1, 4), "410": (4, 4)}


def ratio_of(size):
    """Patches whose middle a centred crop of this size shows."""
    return size[1] / size[0] == STORED[1] / STORED[0]


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


# ---- gamuts and curves


def chromaticity_matrix(primaries, white):
    """Linear RGB to XYZ, white at Y = 1."""
    xyz = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in primaries]).T
    x, y = white
    return xyz * np.linalg.solve(xyz, [x / y, 1.0, (1 - x - y) / y])


D65, C, DCI = (0.3127, 0.3290), (0.310, 0.316), (0.314, 0.351)
GAMUTS = {  # code of H.273 -> primaries, white
    1: (((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)), D65),
    4: (((0.67, 0.33), (0.21, 0.71), (0.14, 0.08)), C),
    8: (((0.681, 0.319), (0.243, 0.692), (0.145, 0.049)), C),
    9: (((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)), D65),
    11: (((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), DCI),
    12: (((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), D65),
}
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367],
                     [0.0389, -0.0685, 1.0296]])  # fmt: skip
SDR_COLOURS = np.array(  # as in the film before it was brought to another gamut, of 255
    [(200, 40, 40), (40, 200, 40), (40, 40, 200), (128, 128, 128), (220, 180, 60), (90, 60, 140)]
)


def in_gamut(light, gamut):
    """Linear BT.709 [n, 3] in other primaries, white for white (Bradford)."""
    source, target = chromaticity_matrix(*GAMUTS[1]), chromaticity_matrix(*GAMUTS[gamut])
    ones = BRADFORD @ source.sum(1), BRADFORD @ target.sum(1)
    adapt = np.linalg.inv(BRADFORD) @ np.diag(ones[1] / ones[0]) @ BRADFORD
    return light @ (np.linalg.inv(target) @ adapt @ source).T


def write_rgb(path, rgb, matrix="bt2020", **tags):
    """Ten bits, limited, lossless; tags by name. Patches of R'G'B' [n, 3]."""
    codes, _ = to_codes(rgb, matrix, 10, False)
    codec_tags = {"colorspace": MATRIX_CODES[matrix], "color_range": 1} | tags
    return write_patches(path, codes, pix_fmt="yuv420p10le", tags=codec_tags)


@pytest.mark.parametrize("gamut", [4, 8, 9, 11, 12])
@pytest.mark.parametrize("curve", [1, 13, 14])
def test_wide_gamuts_are_brought_to_bt709(tmp_path, gamut, curve):
    """The matrix alone leaves them pale, by 30 levels and more for BT.2020."""
    light = in_gamut((SDR_COLOURS / 255.0) ** 2.4, gamut)
    rgb = np.clip(light, 0, 1) ** (1 / 2.4)
    matrix = "bt2020" if gamut == 9 else "bt709"
    path = write_rgb(tmp_path / "a.mp4", rgb, matrix, color_primaries=gamut, color_trc=curve)
    is_inside = (light > -1e-4).all(1)  # colours that this gamut holds come back
    for size in (STORED, REDUCED):
        found = read_patches(path, len(rgb), size)
        np.testing.assert_allclose(found[is_inside], SDR_COLOURS[is_inside], atol=1.5)
    assert is_inside.sum() >= 4
    if gamut == 9:
        assert np.abs(255 * rgb - SDR_COLOURS).max() > 25


def test_a_bt2020_matrix_alone_means_bt2020_primaries(tmp_path):
    rgb = in_gamut((SDR_COLOURS / 255.0) ** 2.4, 9) ** (1 / 2.4)
    path = write_rgb(tmp_path / "a.mp4", rgb)
    np.testing.assert_allclose(read_patches(path, len(rgb)), SDR_COLOURS, atol=1.5)


@pytest.mark.parametrize("primaries", [1, 2, 5, 6, 7, 22])
@pytest.mark.parametrize("curve", [1, 2, 4, 5, 6, 7, 11, 12, 13])
def test_standard_gamuts_and_sdr_curves_are_taken_as_they_are(tmp_path, primaries, curve):
    rgb = SDR_COLOURS / 255.0
    path = write_rgb(tmp_path / "a.mp4", rgb, "bt601", color_primaries=primaries, color_trc=curve)
    np.testing.assert_allclose(read_patches(path, len(rgb)), SDR_COLOURS, atol=1)


@pytest.mark.parametrize(
    ("curve", "encode"),
    [
        (8, lambda light: light),
        (9, lambda light: np.where(light >= 0.01, 1 + np.log10(np.maximum(light, 0.01)) / 2, 0)),
        (10, lambda light: np.where(light >= 10**-2.5,
                                    1 + np.log10(np.maximum(light, 10**-2.5)) / 2.5, 0)),
        (17, lambda light: (48 * light / 52.37) ** (1 / 2.6)),
    ],
    ids=["linear", "log", "log_sqrt", "smpte428"],
)  # fmt: skip
def test_curves_of_other_kinds_are_undone(tmp_path, curve, encode):
    rgb = np.array([(v, v, v) for v in (0.3, 0.45, 0.6, 0.8, 1.0)] + [(0.9, 0.5, 0.4)])
    path = write_rgb(
        tmp_path / "a.mp4", encode(rgb**2.4), "bt709", color_primaries=1, color_trc=curve
    )
    np.testing.assert_allclose(read_patches(path, len(rgb)), 255 * rgb, atol=2)


def pq(nits):
    """ITU-R BT.2100, table 4."""
    y = (np.asarray(nits) / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


def hlg(nits):
    """ITU-R BT.2100, table 5, for a display of 1,000 cd/m2 with system gamma 1.2; [n, 3]."""
    shown = np.asarray(nits) / 1000
    luminance = shown @ np.array([0.2627, 0.6780, 0.0593])
    scene = shown * np.maximum(luminance, 1e-12)[:, None] ** (1 / 1.2 - 1)
    upper = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), upper)


HDR = pytest.mark.parametrize(("curve", "encode"), [(16, pq), (18, hlg)], ids=["pq", "hlg"])


@HDR
@pytest.mark.parametrize(
    "tags", [{"color_primaries": 9}, {"colorspace": 2}], ids=["tagged", "curve_alone"]
)
def test_sdr_colours_inside_hdr_come_back(tmp_path, curve, encode, tags):
    """A film graded for SDR white of 100 cd/m2: taken as they are, code values are 97 off."""
    colours = SDR_COLOURS[:4]
    rgb = encode(100 * in_gamut((colours / 255.0) ** 2.4, 9))
    path = write_rgb(tmp_path / "a.mp4", rgb, color_trc=curve, **tags)
    for size in (STORED, REDUCED):
        found = read_patches(path, len(colours), size)
        np.testing.assert_allclose(found, colours, atol=8)  # the largest are past the knee
    assert np.abs(255 * rgb - colours).max() > 80, "the test must tell the two apart"


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9"])
@pytest.mark.parametrize("curve", [16, 18], ids=["pq", "hlg"])
def test_tags_that_only_the_container_has_count(tmp_path, codec, curve):
    """HEVC's decoder forgets them. The same picture with its tags in the stream is the same."""
    bits = 8 if codec == "libvpx-vp9" else 10
    codes, _ = to_codes(SDR_COLOURS[:4] / 400.0, "bt2020", bits, False)
    tags = {"colorspace": 9, "color_primaries": 9, "color_trc": curve}
    options = {"libx265": {"x265-params": "lossless=1:log-level=none"},
               "libvpx-vp9": {"lossless": "1"}}.get(codec)  # fmt: skip
    pix_fmt = "yuv420p" if bits == 8 else "yuv420p10le"
    coding = {"codec": codec, "pix_fmt": pix_fmt, "options": options}
    silent = write_patches(tmp_path / "silent.mp4", codes, **coding)
    path = tmp_path / "a.mp4"
    with av.open(str(silent)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for name, code in tags.items():
            setattr(stream.codec_context, name, code)
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    tagged = write_patches(tmp_path / "tagged.mp4", codes, tags=tags, **coding)
    expected = read_patches(tagged, 4)
    np.testing.assert_array_equal(read_patches(path, 4), expected)
    assert np.abs(read_patches(silent, 4) - expected).max() > 30


@HDR
def test_hdr_is_rolled_off_to_sdr_white(tmp_path, curve, encode):
    """Below the knee (30 cd/m2) as it is; 203 is diffuse white; 1,000 and more are white."""
    nits = np.array([0.0, 5.0, 20.0, 100.0, 203.0, 500.0, 1000.0])
    path = write_rgb(
        tmp_path / "a.mp4", encode(nits[:, None].repeat(3, 1)), color_primaries=9, color_trc=curve
    )
    found = read_patches(path, len(nits))
    assert np.ptp(found, 1).max() <= 1, "greys stay grey"
    low = 255 * (nits[:3] / 100) ** (1 / 2.4)
    np.testing.assert_allclose(found[:3, 0], low, atol=2)
    # ITU-R BT.2390, 5.4.1, worked out by hand for 203 of 1,000 to 100 cd/m2: 90 cd/m2.
    np.testing.assert_allclose(found[4, 0], 243, atol=2)
    assert (np.diff(found[:, 0]) > 0).all() and found[-1].tolist() == [255, 255, 255]


def test_pq_above_the_peak_is_white(tmp_path):
    path = write_rgb(
        tmp_path / "a.mp4", pq(np.full((2, 3), 4000.0)), color_primaries=9, color_trc=16
    )
    assert read_patches(path, 2).min() == 255


def test_ycgco(tmp_path):
    """ITU-T H.273, equations 53 to 56."""
    rgb = SDR_COLOURS / 255.0
    green, orange = rgb @ (-0.25, 0.5, -0.25), rgb @ (0.5, 0.0, -0.5)
    luma = rgb @ (0.25, 0.5, 0.25)
    codes = np.rint(np.stack([16 + 219 * luma, 128 + 224 * green, 128 + 224 * orange], -1))
    path = write_patches(
        tmp_path / "a.mp4", codes.astype(int), pix_fmt="yuv444p", chroma=(1, 1),
        tags={"colorspace": 8, "color_range": 1},
    )  # fmt: skip
    np.testing.assert_allclose(read_patches(path, len(rgb)), SDR_COLOURS, atol=2)


@pytest.mark.parametrize(
    "tags",
    [
        {"colorspace": 10}, {"colorspace": 11}, {"colorspace": 12}, {"colorspace": 13},
        {"colorspace": 14}, {"color_primaries": 10},
    ],
    ids=lambda tags: "_".join(f"{name}_{code}" for name, code in tags.items()),
)  # fmt: skip
def test_what_cannot_be_converted_has_a_reason_of_its_own(tmp_path, tags):
    codes, _ = to_codes(PATCHES, "bt2020", 10, False)
    path = write_patches(
        tmp_path / "a.mp4", codes, pix_fmt="yuv420p10le",
        tags={"colorspace": 9, "color_primaries": 9, "color_trc": 14} | tags,
    )  # fmt: skip
    with pytest.raises(BadClipError) as bad:
        read_patches(path, len(PATCHES))
    assert bad.value.reason == "unknown_colours" and "H.273" in bad.value.detail


@pytest.mark.parametrize("tags", [{"colorspace": 3}, {"color_primaries": 0}, {"color_trc": 3}])
def test_reserved_tags_count_as_none(tmp_path, tags):
    codes, exact = to_codes(PATCHES, "bt601", 8, False)
    path = write_patches(tmp_path / "a.mp4", codes, tags=tags)
    np.testing.assert_allclose(read_patches(path, len(PATCHES)), 255 * exact, atol=ROUNDING)
