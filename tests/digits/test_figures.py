"""The figures: perfect on real clips, worse on each kind of spoilt clip, defined on garbage."""

import json

import numpy as np
import pytest

from tpdiff_jax.data import MovingDigitsSpec, stack_clips
from tpdiff_jax.digits.figures import (
    DIGIT_METRICS,
    evaluate_videos,
    reference_figures,
    train_images,
)

SPEC = MovingDigitsSpec(speed_stratum="all")
N = 96
NAMES = [metric.name for metric in DIGIT_METRICS]


@pytest.fixture(scope="module")
def real():
    return stack_clips(SPEC, "test", 0, N)["video"]


@pytest.fixture(scope="module")
def other():
    return stack_clips(SPEC, "test", 0, N, start=10_000)


@pytest.fixture(scope="module")
def references(real, other):
    return reference_figures(real, other["video"], other["label"], world=SPEC.world)


@pytest.fixture(scope="module")
def score(real, other):
    def evaluate(videos, labels=other["label"]):
        return evaluate_videos(videos, labels, real_videos=real, world=SPEC.world)

    return evaluate


def test_every_figure_is_described_and_named_once(references):
    assert len(set(NAMES)) == len(NAMES)
    assert {m.direction for m in DIGIT_METRICS} <= {"higher", "lower", "match"}
    for figures in references.values():
        assert list(figures) == NAMES
        assert all(type(value) is float and np.isfinite(value) for value in figures.values())
    json.dumps(references)


def test_real_clips_are_exact_where_the_world_is(references):
    ceiling = references["ceiling"]
    for name in ("velocity_error", "bounce_error", "acceleration_residual"):
        assert ceiling[name] < 0.004
    assert ceiling["mass_drift"] < 1e-5 and ceiling["stray_ink"] < 1e-5
    assert ceiling["digit_found"] == 1.0
    assert ceiling["label_accuracy"] > 0.93
    assert ceiling["identity_consistency"] > 0.97


def test_a_frozen_video_does_not_win(references):
    ceiling, frozen = references["ceiling"], references["frozen"]
    for name in ("speed_wasserstein", "velocity_error", "bounce_error", "frechet"):
        assert frozen[name] > 5.0 * ceiling[name] + 0.1


def test_shuffled_frames_are_worse_than_frozen_ones_in_motion(references):
    ceiling, shuffled = references["ceiling"], references["shuffled"]
    for name in ("speed_wasserstein", "velocity_error", "acceleration_residual", "frechet"):
        assert shuffled[name] > references["frozen"][name] > ceiling[name] - 1e-6
    # The digits are untouched.
    assert shuffled["label_accuracy"] == pytest.approx(ceiling["label_accuracy"])
    assert shuffled["mass_drift"] < 1e-5


def test_figures_do_not_depend_on_the_order_of_videos(score, other, references):
    order = np.random.default_rng(0).permutation(N)
    figures = score(other["video"][order], other["label"][order])
    assert figures == pytest.approx(references["ceiling"], rel=1e-6, abs=1e-6)


def test_wrong_labels_cost_label_accuracy_and_nothing_else(score, other, references):
    wrong = score(other["video"], (other["label"] + 1) % 10)
    assert wrong.pop("label_accuracy") < 0.1
    assert wrong == {k: v for k, v in references["ceiling"].items() if k != "label_accuracy"}


def test_a_digit_that_changes_loses_identity(score, other, references):
    videos = other["video"].copy()
    partner = np.roll(np.arange(N), 1)
    videos[:, 8:] = other["video"][partner, 8:]
    figures = score(videos)
    assert figures["identity_consistency"] < references["ceiling"]["identity_consistency"] - 0.2
    assert figures["mass_drift"] > 0.03
    assert figures["frechet"] > 10 * references["ceiling"]["frechet"]


def test_fading_odd_frames_show_as_even_odd_energy(score, other):
    videos = other["video"].copy()
    videos[:, 1::2] = 0.8 * (videos[:, 1::2] + 1.0) - 1.0
    # Energies 1 and 0.64: 2 (1 - 0.64) / 1.64.
    assert score(videos)["even_odd_energy"] == pytest.approx(0.72 / 1.64, abs=0.01)


def test_haze_shows_as_stray_ink_and_mass(score, other, references):
    figures = score(np.maximum(other["video"], -0.9))
    assert figures["stray_ink"] > 0.3 and figures["mass_error"] > 1.0


def test_copied_training_digits_are_nearer_than_unseen_ones(score, references):
    train = stack_clips(SPEC, "train", 0, N)
    copied = score(train["video"], train["label"])
    limit = 0.3 * references["ceiling"]["nearest_train_distance"]
    assert copied["nearest_train_distance"] < limit
    assert train_images(1).shape == (1437, 144)


def test_figures_of_an_empty_video_are_the_worst_ones(score, references):
    for value in (-1.0, np.nan, np.inf):
        figures = score(np.full((N, 16, 32, 32, 1), value, np.float32))
        assert all(np.isfinite(v) for v in figures.values())
        assert figures["label_accuracy"] == figures["identity_consistency"] == 0.0
        assert figures["digit_found"] == 0.0
        for metric in DIGIT_METRICS:
            if metric.direction == "lower":
                assert figures[metric.name] > references["ceiling"][metric.name] + 0.1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("digits", [1, 2])
def test_garbage_has_defined_figures(digits):
    spec = MovingDigitsSpec(frame_size=32 * digits, num_digits=digits, num_frames=6)
    clips = stack_clips(spec, "test", 0, 8)
    rng = np.random.default_rng(0)
    shape = clips["video"].shape
    half_nan = clips["video"].copy()
    half_nan[:4, ::2] = np.nan
    one_only = clips["video"].copy()
    one_only[1:] = -1.0
    centred = np.full(shape, -1.0, np.float32)
    middle = spec.frame_size // 2
    centred[:, :, middle - 3 : middle + 3, middle - 3 : middle + 3] = 1.0
    for videos in (
        rng.uniform(-1, 1, shape),
        rng.standard_normal(shape) * 1e6,
        np.ones(shape),
        half_nan,
        one_only,
        centred,
    ):
        figures = evaluate_videos(
            videos, clips["label"], real_videos=clips["video"], world=spec.world
        )
        assert list(figures) == NAMES
        assert all(np.isfinite(value) for value in figures.values())


def test_two_digit_labels_are_an_unordered_pair():
    spec = MovingDigitsSpec(frame_size=64, num_digits=2, speed_stratum="all")
    clips = stack_clips(spec, "test", 0, 24)
    first, second = (
        evaluate_videos(clips["video"], labels, real_videos=clips["video"], world=spec.world)
        for labels in (clips["label"], clips["label"][:, ::-1])
    )
    assert first == second
    assert first["label_accuracy"] > 0.85 and first["velocity_error"] < 0.3


def test_unequal_sets_short_videos_and_bad_labels_are_refused(real, other):
    def evaluate(videos=other["video"], labels=other["label"], real_videos=real):
        evaluate_videos(videos, labels, real_videos=real_videos, world=SPEC.world)

    with pytest.raises(ValueError, match="bias depends on n"):
        evaluate(real_videos=real[:-1])
    with pytest.raises(ValueError, match="data.num_frames"):
        evaluate(videos=other["video"][:, :2])
    with pytest.raises(ValueError, match="labels are"):
        evaluate(labels=other["label"][:, 0])
    with pytest.raises(ValueError, match="labels are"):
        evaluate(labels=other["label"].astype(np.float32))
