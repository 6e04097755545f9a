"""Claims of the Moving Digits data set, against frozen hashes and hand arithmetic."""

import hashlib
import json

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tpdiff_jax.data import DATASETS, MovingDigitsSpec, stack_clips
from tpdiff_jax.data.moving_digits import VERSION, captions_to_labels
from tpdiff_jax.digits.digit_physics import load_glyphs, splat

ONE = MovingDigitsSpec(speed_stratum="all")
TWO = MovingDigitsSpec(frame_size=64, num_digits=2, speed_stratum="all")
NATURAL = MovingDigitsSpec()


def digest(spec, split, count):
    total = hashlib.sha256()
    for index in range(count):
        clip = spec.clip(split, 0, index)
        total.update(clip["video"].astype("<f4").tobytes())
        total.update(clip["label"].astype("<i4").tobytes())
    return total.hexdigest()


def ink_of(video):
    return 0.5 * (np.float64(video[..., 0]) + 1.0)


def test_the_fingerprint_tells_data_sets_apart_and_is_json():
    specs = [
        ONE,
        TWO,
        MovingDigitsSpec(num_frames=8),
        MovingDigitsSpec(speed_stratum="slow"),
        NATURAL,
    ]
    texts = {json.dumps(spec.fingerprint(), sort_keys=True) for spec in specs}
    assert len(texts) == len(specs)
    assert NATURAL.fingerprint() == MovingDigitsSpec(digit_scale=1).fingerprint()  # the same clips
    assert ONE.fingerprint()["version"] == VERSION


def test_first_thousand_clips_are_frozen():
    assert VERSION == "moving-digits-1"
    assert digest(ONE, "train", 1000) == (
        "fd3acc25a55bca95e057b0c60629744294456f44260a7311de08d38938e27e61"
    )


@pytest.mark.parametrize(
    ("spec", "split", "expected"),
    [
        (TWO, "train", "d8cc9591c834dbe3fc39f214b6c8264ed4e3830dd2cc8bc808b2e518ea33c288"),
        (NATURAL, "train", "bc0d3547c39e615d2802efdf2beadb8144744e49eeaccf582b4df50d267ce8aa"),
        (ONE, "test", "01ee8ddd6413a56a1c4117234bf74f027d53987bdb1eb7f416d1704a728653a8"),
    ],
)
def test_second_tier_and_test_split_are_frozen(spec, split, expected):
    assert digest(spec, split, 100) == expected


def test_glyphs_split_is_contiguous_and_disjoint():
    source = load_digits()
    train, test = load_glyphs("train"), load_glyphs("test")
    assert (len(train.labels), len(test.labels)) == (1437, 360)
    np.testing.assert_array_equal(np.concatenate([train.images, test.images]) * 16.0, source.images)
    np.testing.assert_array_equal(np.concatenate([train.labels, test.labels]), source.target)


def test_clip_is_a_pure_function_of_seed_split_and_index():
    again = MovingDigitsSpec(speed_stratum="all").clip("train", 3, 7)
    other_order = [ONE.clip("train", 3, i) for i in (9, 7)][1]
    for name in ("video", "label", "path", "velocity"):
        np.testing.assert_array_equal(again[name], other_order[name])
    for split, seed, index in (("test", 3, 7), ("train", 4, 7), ("train", 3, 8)):
        assert not np.array_equal(ONE.clip(split, seed, index)["video"], again["video"])


def test_shapes_types_range_and_any_number_of_frames():
    clip = MovingDigitsSpec(num_frames=21, frame_size=64, num_digits=2).clip("train", 0, 0)
    assert clip["video"].shape == (21, 64, 64, 1) and clip["video"].dtype == np.float32
    assert clip["label"].shape == (2,) and clip["label"].dtype == np.int32
    assert clip["video"].min() == -1.0 and clip["video"].max() <= 1.0


def test_a_longer_clip_begins_with_the_shorter_one():
    short = ONE.clip("train", 0, 5)["video"]
    long = MovingDigitsSpec(num_frames=40, speed_stratum="all").clip("train", 0, 5)["video"]
    np.testing.assert_array_equal(long[:16], short)


def test_one_digit_conserves_mass_and_is_its_glyphs_mass():
    clips = stack_clips(ONE, "test", 0, 200)
    mass = ink_of(clips["video"]).sum((2, 3))
    expected = load_glyphs("test").images.sum((1, 2))[clips["glyph"][:, 0]]
    np.testing.assert_allclose(mass, np.repeat(expected[:, None], 16, 1), rtol=1e-6)


def test_digit_scale_two_has_four_times_the_mass_and_an_exact_centroid():
    spec = MovingDigitsSpec(frame_size=64)
    clips = stack_clips(spec, "test", 0, 50)
    ink = ink_of(clips["video"])
    mass = ink.sum((2, 3))
    expected = 4.0 * load_glyphs("test").images.sum((1, 2))[clips["glyph"][:, 0]]
    np.testing.assert_allclose(mass, np.repeat(expected[:, None], 16, 1), rtol=1e-6)
    centroid = np.stack([ink.sum(3) @ np.arange(64), ink.sum(2) @ np.arange(64)], -1)
    np.testing.assert_allclose(centroid / mass[..., None], clips["path"][:, :, 0], atol=1e-4)


def test_two_digits_conserve_mass_except_where_they_overlap():
    clips = stack_clips(TWO, "train", 0, 50)
    mass = ink_of(clips["video"]).sum((2, 3))
    expected = 4.0 * load_glyphs("train").images.sum((1, 2))[clips["glyph"]].sum(1)[:, None]
    apart = np.abs(np.diff(clips["path"], axis=2)[:, :, 0]).max(-1) > 22.0
    assert apart.mean() > 0.2
    np.testing.assert_allclose(mass[apart], np.repeat(expected, 16, 1)[apart], rtol=1e-6)
    assert (mass <= expected * (1 + 1e-6)).all()


def test_path_keeps_its_speed_and_turns_only_at_walls():
    clips = stack_clips(MovingDigitsSpec(num_frames=64), "train", 0, 100)
    path, world = clips["path"][:, :, 0], ONE.world
    assert path.min() >= world.low and path.max() <= world.high
    step = np.diff(path, axis=1)  # [n, f - 1, 2]
    velocity = np.abs(clips["velocity"])[:, :1]
    is_free = np.isclose(np.abs(step), velocity, atol=1e-9)
    # A step that is shorter bounced: both ends are near the wall, their distances to it sum to |v|.
    to_low = (path[:, 1:] - world.low) + (path[:, :-1] - world.low)
    to_high = 2.0 * world.high - path[:, 1:] - path[:, :-1]
    is_elastic = np.isclose(np.minimum(to_low, to_high), velocity, atol=1e-9)
    assert (is_free | is_elastic).all()
    assert (~is_free).any()


def test_directions_are_isotropic_and_speeds_uniform():
    velocity = stack_clips(ONE, "train", 0, 2000)["velocity"][:, 0]
    unit = velocity / np.linalg.norm(velocity, axis=1, keepdims=True)
    # Mean and second moment of a uniform direction: 0 and I / 2; four standard errors at n = 2000.
    np.testing.assert_allclose(unit.mean(0), 0.0, atol=4 * np.sqrt(0.5 / 2000))
    np.testing.assert_allclose(unit.T @ unit / 2000, np.eye(2) / 2, atol=4 * np.sqrt(0.125 / 2000))
    speeds = np.linalg.norm(velocity, axis=1)
    # Uniform over [0.5, 1.5] and [2, 3]: mean 1.75, half of them slow.
    assert abs(speeds.mean() - 1.75) < 4 * 0.81 / np.sqrt(2000)
    assert abs((speeds < 1.75).mean() - 0.5) < 4 * 0.5 / np.sqrt(2000)


@pytest.mark.parametrize(
    ("stratum", "bands"),
    [
        ("natural", [(0.15, 0.55)]),
        ("slow", [(0.5, 1.5)]),
        ("fast", [(2.0, 3.0)]),
        ("held_out", [(1.5, 2.0)]),
        ("all", [(0.5, 1.5), (2.0, 3.0)]),
    ],
)
@pytest.mark.parametrize("size", [32, 64])
def test_strata_keep_their_speed_bands(stratum, bands, size):
    spec = MovingDigitsSpec(speed_stratum=stratum, frame_size=size, num_frames=1)
    velocity = stack_clips(spec, "test", 0, 300)["velocity"]
    speeds = np.linalg.norm(velocity, axis=-1) / (size // 32)
    inside = [(low - 1e-4 <= speeds) & (speeds <= high + 1e-4) for low, high in bands]
    assert np.any(inside, axis=0).all()


@pytest.mark.parametrize("stride, least, most", [(2, 0.03, 0.07), (4, 0.12, 0.22)])
def test_natural_speeds_are_as_redundant_as_real_footage(stride, least, most):
    """Of the variance, a copied frame misses as much as in real clips at 25 to 30 frames/s."""
    x = stack_clips(NATURAL, "train", 0, 200)["video"].astype(np.float64)
    copied = np.repeat(x[:, ::stride], stride, axis=1)
    share = np.mean((x - copied) ** 2) / np.mean((x - x.mean((0, 1))) ** 2)
    assert least <= share <= most


def test_legal_speeds_are_those_of_the_stratum():
    for stratum, (least, most) in {"natural": (0.15, 0.55), "all": (0.5, 3.0)}.items():
        world = MovingDigitsSpec(speed_stratum=stratum, frame_size=64).world
        assert (world.min_speed, world.max_speed) == (2 * least, 2 * most)
        assert world.wrong_speed == 6.0  # whatever the stratum


def test_held_out_speeds_never_train():
    with pytest.raises(ValueError, match="data.speed_stratum"):
        MovingDigitsSpec(speed_stratum="held_out").clip("train", 0, 0)


def test_captions_name_digits_pace_and_direction_and_parse_back():
    clips = stack_clips(TWO, "train", 0, 200)
    np.testing.assert_array_equal(captions_to_labels(clips["caption"], 2), clips["label"])
    one = stack_clips(MovingDigitsSpec(speed_stratum="fast"), "test", 0, 200)
    to_upper_right = [
        v[0, 0] < 0 < v[0, 1] and abs(np.log(-v[0, 0] / v[0, 1])) < 0.5 for v in one["velocity"]
    ]
    texts = [c for c, hit in zip(one["caption"], to_upper_right, strict=True) if hit]
    assert texts and all(t.endswith("moves fast to the upper right") for t in texts)


def test_words_parse_as_digits():
    assert captions_to_labels(["Digit SEVEN, then the digit 0"], 2).tolist() == [[7, 0]]


@pytest.mark.parametrize("text", ["", "a cat", "the digit 12 moves", "digit 1 and digit 2", "3"])
def test_unparsable_captions_are_refused(text):
    with pytest.raises(ValueError, match='as "digit N"'):
        captions_to_labels([text], 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_frames", 0),
        ("frame_size", 15),
        ("num_digits", 3),
        ("speed_stratum", "warp"),
        ("digit_scale", -1),
    ],
)
def test_bad_fields_are_named(field, value):
    with pytest.raises(ValueError, match=f"data.{field}"):
        MovingDigitsSpec(**{field: value})


@pytest.mark.parametrize(
    ("split", "seed", "index"), [("val", 0, 0), ("train", -1, 0), ("test", 0, -1)]
)
def test_bad_clip_addresses_are_refused(split, seed, index):
    with pytest.raises(ValueError, match="allowed"):
        ONE.clip(split, seed, index)


def test_the_table_builds_the_data_set():
    assert DATASETS["moving_digits"](num_frames=8) == MovingDigitsSpec(num_frames=8)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_no_digit_ever_leaves_the_frame(scale):
    # The centroid walls leave room for every glyph: at each wall all its mass is still drawn.
    spec = MovingDigitsSpec(frame_size=32 * scale)
    world = spec.world
    corners = np.array([[a, b] for a in (world.low, world.high) for b in (world.low, world.high)])
    for split in ("train", "test"):
        glyphs = load_glyphs(split)
        for image, centroid in list(zip(glyphs.images, glyphs.centroids, strict=True))[::3]:
            mass = splat(image, centroid, corners, world).sum((1, 2))
            np.testing.assert_allclose(mass, scale**2 * image.sum(), rtol=1e-12)
