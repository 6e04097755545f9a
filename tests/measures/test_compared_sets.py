"""What a reader of the figures has to know: training clips among the sets, sets that are small."""

import numpy as np
import pytest

from tests.evals.test_video_statistics import moving_pictures
from tests.measures.test_clip_measures import Clips, as_video
from tpdiff_jax.measures.clip_measures import ClipMeasures, MeasureSpec
from tpdiff_jax.measures.compared_sets import choose_sets, notes_on_sets

TRAINING, CEILING = "compared with TRAINING clips", "the ceiling is that of training clips"
FEW, SMALL, NOTHING = "of 30 asked for", "too few for statistics", "nothing is measured"


@pytest.mark.parametrize(
    ("num_test", "num_train", "said"),
    [
        (60, 90, []),
        (40, 90, [CEILING]),
        (30, 90, [CEILING]),
        (26, 90, [CEILING, FEW]),
        (25, 90, [CEILING, FEW]),
        (24, 90, [CEILING, FEW, SMALL]),
        (2, 28, [CEILING, FEW, SMALL]),
        (1, 90, [TRAINING]),
        (0, 90, [TRAINING]),
        (0, 30, [TRAINING, FEW, SMALL]),
        (1, 1, [NOTHING]),
        (0, 0, [NOTHING]),
    ],
)
def test_notes_say_where_clips_come_from_and_when_they_are_too_few(num_test, num_train, said):
    """24 statistics: the covariance of 24 clips has rank 23 at most, of 25 it can be full."""
    sets = choose_sets(num_test, num_train, 30)
    notes = notes_on_sets(sets, num_test, 30, {"statistics": 24})
    assert len(notes) == len(said)
    assert all(text in note for text, note in zip(said, notes, strict=True))
    for note in notes:
        if TRAINING in note or NOTHING in note:
            assert f"{num_test} clip{'' if num_test == 1 else 's'} held out" in note


@pytest.mark.parametrize(("num_clips", "is_small"), [(400, True), (401, False)])
def test_fvd_needs_more_clips_than_logits(num_clips, is_small):
    sets = choose_sets(10_000, 10_000, num_clips)
    notes = notes_on_sets(sets, 10_000, num_clips, {"statistics": 24, "fvd": 400})
    assert any("too few for fvd" in note for note in notes) == is_small
    assert len(notes) == is_small


def test_the_rank_is_what_the_note_says():
    rng = np.random.default_rng(0)
    for n, rank in ((24, 23), (25, 24), (400, 24)):
        assert np.linalg.matrix_rank(np.cov(rng.normal(size=(n, 24)), rowvar=False)) == rank


def test_notes_go_with_the_figures():
    measures = ClipMeasures(MeasureSpec(), Clips({"test": 1, "train": 60}), 30)
    assert [TRAINING in note for note in measures.notes] == [True]
    assert measures(as_video(moving_pictures(30, 3)))["metrics"]["statistics"] > 0
    latents = ClipMeasures(MeasureSpec(), Clips({"test": 8, "train": 8}, is_pixels=False), 8)
    assert "clips are latents" in latents.notes[0] and not latents.is_possible
