"""The stage of a step: a pure function, even counts, the stated probabilities."""

import collections

import numpy as np
import pytest

from tpdiff_jax.data.step_schedule import ClipsOfStep, stage_of_step, validate_stage_probs


def test_uniform_blocks_hold_each_stage_equally_often() -> None:
    probs = validate_stage_probs((), 3)
    for block in range(20):
        stages = [stage_of_step(7, step, probs) for step in range(12 * block, 12 * (block + 1))]
        assert collections.Counter(stages) == {0: 4, 1: 4, 2: 4}


def test_order_is_shuffled_and_depends_on_the_seed_only_through_its_value() -> None:
    probs = validate_stage_probs((), 3)
    runs = [[stage_of_step(seed, step, probs) for step in range(120)] for seed in (0, 1, 0)]
    assert runs[0] == runs[2]
    assert runs[0] != runs[1]
    assert runs[0][:12] != runs[0][12:24]
    backwards = [stage_of_step(0, step, probs) for step in reversed(range(120))]
    assert backwards[::-1] == runs[0]


def test_counts_follow_unequal_probabilities() -> None:
    probs = validate_stage_probs((5, 3, 2), 3)
    num_steps = 12_000
    counts = collections.Counter(stage_of_step(3, step, probs) for step in range(num_steps))
    shares = np.array([counts[i] for i in range(3)]) / num_steps
    # Systematic sampling: a block of 12 errs by less than one, so 1,000 blocks by far less.
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.2], atol=5e-3)


def test_a_rare_stage_is_trained_as_often_as_its_probability_says() -> None:
    probs, num_steps = validate_stage_probs((0.002, 0.998), 2), 80_000
    count = sum(stage_of_step(5, step, probs) == 0 for step in range(num_steps))
    assert abs(count - 160) < 5 * 160**0.5  # at most one a block: binomial


def test_equal_stages_are_shuffled_alone_wherever_their_block_starts() -> None:
    for num_stages in range(1, 9):
        probs, length = validate_stage_probs((), num_stages), 4 * num_stages
        for block in range(50):
            rng = np.random.default_rng([11, block, 0x57A6E])
            steps = range(block * length, (block + 1) * length)
            expected = (rng.permutation(length) // 4).tolist()
            assert [stage_of_step(11, step, probs) for step in steps] == expected


def test_one_stage_is_always_stage_zero() -> None:
    assert {stage_of_step(0, step, (1.0,)) for step in range(50)} == {0}


@pytest.mark.parametrize("probs", [(0.5, 0.5), (1.0, 0.0, 1.0), (1.0, -1.0, 1.0), (1, 1, np.nan)])
def test_wrong_probabilities_are_refused_by_name(probs: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"train\.stage_probs"):
        validate_stage_probs(probs, 3)


def test_clips_of_a_step_need_no_other_step_and_no_clip_comes_twice():
    probs, sizes = (0.5, 0.25, 0.25), (16, 8, 4)
    rows = tuple(tuple(range(size)) for size in sizes)
    clips = ClipsOfStep(seed=3, stage_probs=probs, rows=rows, clips_per_step=16)
    seen: set[int] = set()
    for step in range(48):
        numbers = clips(step)
        assert len(numbers) == sizes[stage_of_step(3, step, probs)]
        assert numbers[0] == 16 * step and not seen & set(numbers)
        seen |= set(numbers)


def test_the_processes_clips_are_those_of_their_rows():
    whole = ClipsOfStep(seed=0, stage_probs=(1.0,), rows=((0, 1, 2, 3),), clips_per_step=4)
    share = ClipsOfStep(seed=0, stage_probs=(1.0,), rows=((1, 3),), clips_per_step=4)
    assert whole(5) == [20, 21, 22, 23]
    assert share(5) == [21, 23]
