"""Measures of Moving Digits: one set of real clips, and the choice between the two families."""

from types import SimpleNamespace

import numpy as np
import pytest

from tpdiff_jax.data import MovingDigitsSpec, stack_clips
from tpdiff_jax.digits.figures import DIGIT_METRICS
from tpdiff_jax.evaluate import choose_measures
from tpdiff_jax.measures.clip_measures import ClipMeasures, MeasureSpec
from tpdiff_jax.measures.digit_measures import DigitMeasures

SPEC, COUNT, SEED = MovingDigitsSpec(num_frames=8), 24, 5
NOTHING = MeasureSpec()


@pytest.fixture(scope="module")
def measures():
    return DigitMeasures(SPEC, SPEC.world, COUNT, SEED)


@pytest.fixture(scope="module")
def real():
    return stack_clips(SPEC, "test", SEED, 2 * COUNT)


@pytest.fixture(scope="module")
def evaluation(measures, real):
    return measures(real["video"][:COUNT])


def test_videos_are_asked_for_all_classes_evenly(measures):
    assert measures.is_possible and measures.num_videos == COUNT
    labels = measures.conditions()["label"]
    assert labels.shape == (COUNT, 1)
    assert np.ptp(np.bincount(labels[:, 0], minlength=10)) <= 1


def test_every_figure_is_described_and_has_a_ceiling_and_floors(evaluation):
    names = [metric.name for metric in DIGIT_METRICS]
    assert [*evaluation["metrics"]] == names == [*evaluation["metric_info"]]
    assert [*evaluation["references"]] == ["ceiling", "frozen", "shuffled"]
    assert all([*row] == names for row in evaluation["references"].values())
    assert evaluation["metric_info"]["velocity_error"] == {
        "name": "velocity_error",
        "direction": "lower",
        "unit": "px/frame",
        "meaning": "step error against the nearest legal path",
    }


def test_the_videos_are_compared_with_the_first_test_clips_of_the_seed(evaluation):
    """Measured against themselves they have no distance; the ceiling's clips are others."""
    assert evaluation["metrics"]["speed_wasserstein"] == pytest.approx(0, abs=1e-6)
    assert evaluation["metrics"]["frechet"] == pytest.approx(0, abs=1e-4)
    assert evaluation["references"]["ceiling"]["frechet"] > 1e-2


def test_labels_are_those_that_were_asked_for(measures, real, evaluation):
    """Real clips show their own labels; those asked for agree with them by chance only."""
    shown, asked = real["label"][:COUNT], measures.conditions()["label"]
    expected = float((shown == asked).mean())
    assert evaluation["metrics"]["label_accuracy"] == pytest.approx(expected, abs=0.1)
    assert evaluation["references"]["ceiling"]["label_accuracy"] > 0.8


def test_references_are_computed_once(measures, evaluation, real):
    again = measures(real["video"][COUNT:])
    assert again["references"] is evaluation["references"]
    ceiling = again["references"]["ceiling"]
    same = [m.name for m in DIGIT_METRICS if m.name != "label_accuracy"]
    assert [again["metrics"][name] for name in same] == [ceiling[name] for name in same]


def test_a_set_of_another_size_and_too_short_clips_are_refused(measures, real):
    with pytest.raises(ValueError, match="bias depends on n"):
        measures(real["video"][: COUNT - 1])
    with pytest.raises(ValueError, match="data.num_frames is 2; allowed in evaluation: 3"):
        measures(real["video"][:COUNT, :2])


@pytest.mark.parametrize(
    ("frames", "count", "told"),
    [
        (8, 1, "eval.num_videos=1, and a set needs two videos"),
        (2, 24, "data.num_frames=2, and motion needs 3 frames"),
        (3, 2, ""),
    ],
)
def test_what_cannot_be_measured_is_known_before_a_run(frames, count, told):
    spec = MovingDigitsSpec(num_frames=frames)
    measures = DigitMeasures(spec, spec.world, count, SEED)
    assert measures.is_possible == (not told)
    assert list(measures.notes) == ([f"nothing is measured: {told}"] if told else [])
    if not told:
        videos = stack_clips(spec, "test", SEED, count)["video"]
        assert np.isfinite(list(measures(videos)["metrics"].values())).all()


def test_the_data_set_chooses_the_measures(tmp_path):
    evaluation = SimpleNamespace(num_videos=4, seed=0)

    def experiment(measure=NOTHING, **changes):
        names = ("world", "num_clips", "null_cond", "is_pixels", "num_frames")
        facts = {name: getattr(SPEC, name) for name in names} | changes
        return SimpleNamespace(
            dataset=SimpleNamespace(**facts), evaluation=evaluation, measure=measure
        )

    exact, compared = choose_measures(experiment()), choose_measures(experiment(world=None))
    assert isinstance(exact, DigitMeasures) and isinstance(compared, ClipMeasures)
    assert exact.num_videos == compared.num_videos == 4
    weights = tmp_path / "i3d"
    weights.touch()
    for name, place in (("fvd_weights", weights), ("clip_folder", tmp_path)):
        with pytest.raises(ValueError, match=f"measure.{name}='.*' must be '': digits are"):
            choose_measures(experiment(MeasureSpec(**{name: str(place)})))


def test_sets_are_chosen_of_endless_splits_too():
    measures = ClipMeasures(MeasureSpec(), SPEC, 6)
    assert measures.num_videos == 6
    assert measures.conditions()["label"].shape == (6, 1)
