"""The paper's choice of clips, with ties and missing scores as the module states them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpdiff_jax.preparation.curation import is_in_top, paper_choice

SCORES = st.lists(st.one_of(st.none(), st.integers(0, 30)), min_size=1, max_size=80)


def test_hundred_distinct_scores_by_hand():
    """Motion falls, aesthetic rises: no clip is good at both, the ends come in by the 3 %."""
    rising = list(range(100))
    taken = paper_choice(rising[::-1], rising)
    assert [i for i, is_taken in enumerate(taken) if is_taken] == [0, 1, 2, 97, 98, 99]
    both = paper_choice(rising, rising)
    assert [i for i, is_taken in enumerate(both) if is_taken] == list(range(80, 100))


def test_independent_scores_leave_about_what_the_rule_says():
    """P(both in 20 %) + P(one in 3 %) without overlap: 0.04 + 0.0591 - 0.0111 = 0.088."""
    rng = np.random.default_rng(0)
    motion, aesthetic = rng.random((2, 100_000)).tolist()
    assert np.mean(paper_choice(motion, aesthetic)) == pytest.approx(0.088, abs=0.003)


def test_ties_stand_or_fall_together():
    assert is_in_top([5, 5, 5, 1, 1, 1, 1, 1, 1, 1], 0.2) == [True] * 3 + [False] * 7
    assert is_in_top([5, 5, 4, 4, 4, 1, 1, 1, 1, 1], 0.2) == [True] * 2 + [False] * 8


def test_missing_scores_neither_win_nor_count():
    assert is_in_top([None, 1, None, 2, 3, 4, 5], 0.2) == [False] * 6 + [True]
    assert paper_choice([None, 9.0, 1.0], [9.0, None, 1.0]) == [True, True, False]
    assert paper_choice([None], [None]) == [False]


def test_shares_are_exact():
    """In floating point 0.07 x 100 is 7.000000000000001, which would let an eighth clip in."""
    assert sum(is_in_top(list(range(100)), 0.07)) == 7
    assert sum(is_in_top(list(range(100)), 1.0)) == 100


@settings(max_examples=100, deadline=None)
@given(scores=SCORES, seed=st.integers(0, 99), share=st.sampled_from([0.03, 0.2, 0.5]))
def test_the_order_of_rows_decides_nothing(scores, seed, share):
    order = np.random.default_rng(seed).permutation(len(scores))
    shuffled = is_in_top([scores[i] for i in order], share)
    assert shuffled == [is_in_top(scores, share)[i] for i in order]


@settings(max_examples=100, deadline=None)
@given(scores=SCORES, share=st.sampled_from([0.03, 0.2, 0.5]))
def test_at_least_the_share_is_taken_and_nothing_below_what_is_left_out(scores, share):
    taken = is_in_top(scores, share)
    present = [score for score in scores if score is not None]
    inside = [score for score, is_taken in zip(scores, taken, strict=True) if is_taken]
    outside = [s for s, t in zip(scores, taken, strict=True) if not t and s is not None]
    assert len(inside) >= share * len(present) - 1e-9
    if inside and outside:
        assert min(inside) > max(outside)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (([1.0], [1.0, 2.0], {}), "motion"),
        (([1.0], [1.0], {"top_both": 0.0}), "prepare.top_both"),
        (([1.0], [1.0], {"top_one": 1.5}), "prepare.top_one"),
    ],
)
def test_bad_arguments_are_named(arguments, named):
    motion, aesthetic, shares = arguments
    with pytest.raises(ValueError, match=named):
        paper_choice(motion, aesthetic, **shares)
