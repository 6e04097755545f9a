"""What stages come to, by hand; and the line that says what does not fit."""

import pytest

from tpdiff_jax.planning.summary import refusal, training_summary

ROWS = [
    {"roofline": {"seconds": 1.0}, "batch_size": 8, "tokens": 80, "model_flops": 2.0},
    {"roofline": {"seconds": 2.0}, "batch_size": 8, "tokens": 160, "model_flops": 6.0},
]


def test_rates_and_chip_hours_at_the_bound() -> None:
    summary = training_summary(ROWS, (0.5, 0.5), num_chips=4, num_clips=36_000)
    assert summary is not None
    assert summary["step_seconds"] == 1.5
    assert summary["clips_per_second"] == pytest.approx(8 / 1.5)
    assert summary["tokens_per_second"] == pytest.approx(120 / 1.5)
    assert summary["speedup_over_vanilla"] == pytest.approx(2.0 / 1.5)
    assert summary["flops_ratio_to_vanilla"] == pytest.approx(4.0 / 6.0)
    # 36,000 clips are 4,500 steps of 1.5 s on 4 chips; full rate takes 2 s a step.
    assert summary["chip_hours"] == pytest.approx(4500 * 1.5 * 4 / 3600)
    assert summary["chip_hours_vanilla"] == pytest.approx(4500 * 2.0 * 4 / 3600)


def test_larger_batches_of_cheap_stages_count_as_more_clips() -> None:
    rows = [ROWS[0] | {"batch_size": 24}, ROWS[1]]
    summary = training_summary(rows, (0.5, 0.5), num_chips=1, num_clips=1)
    assert summary is not None
    assert summary["clips_per_second"] == pytest.approx(16 / 1.5)
    assert summary["speedup_over_vanilla"] == pytest.approx((16 / 1.5) / (8 / 2.0))


def test_shapes_of_clips_count_by_their_share_of_the_steps() -> None:
    twice = [row | {"roofline": {"seconds": 2 * row["roofline"]["seconds"]}} for row in ROWS]
    probs = (0.5, 0.5)
    summary = training_summary(
        [*ROWS, *twice], probs, num_chips=1, num_clips=1, bucket_steps=(150, 50)
    )
    assert summary is not None
    assert summary["step_seconds"] == pytest.approx(0.75 * 1.5 + 0.25 * 3.0)
    assert summary["tokens_per_second"] == pytest.approx(120 / 1.875)
    assert summary["speedup_over_vanilla"] == pytest.approx(2.0 / 1.5)
    assert summary["chip_hours_vanilla"] == pytest.approx((0.75 * 2 + 0.25 * 4) / 8 / 3600)


def test_without_a_roofline_there_are_no_rates() -> None:
    rows = [ROWS[0], ROWS[1] | {"roofline": None}]
    assert training_summary(rows, (0.5, 0.5), num_chips=1, num_clips=1) is None


FITS = {
    "name": "sampler", "batch_size": 16, "batch_field": "sample.batch_size", "fits": True,
    "needed_bytes": 1.0,
}  # fmt: skip
TOO_BIG = {
    "name": "train stage 2", "batch_size": 64, "batch_field": "train.batch_size", "fits": False,
    "needed_bytes": 3 * 2.0**30,
}  # fmt: skip
REFUSED = "train stage 2 does not fit v5e:2x4 with batches of 64 (3.00 GiB a device)"


def found(batch_size: int, field: str = "train.batch_size") -> dict:
    """Return what a search for the largest batch found."""
    return {"batch_field": field, "batch_size": batch_size, "refused": batch_size + 8}


@pytest.mark.parametrize(
    ("search", "said"),
    [
        (None, f"{REFUSED}; choose a smaller train.batch_size"),
        (found(16), f"{REFUSED}; the largest that fits is train.batch_size=16"),
        (found(0), f"nothing fits: {REFUSED}, and no smaller batch does"),
        (found(16, "sample.batch_size"), f"{REFUSED}; choose a smaller train.batch_size"),
    ],
)
def test_the_refusal_names_program_batch_and_what_would_fit(search: dict, said: str) -> None:
    assert refusal("v5e:2x4", [FITS, TOO_BIG], search) == said


def test_each_program_names_the_field_of_its_own_batch() -> None:
    line = refusal("v5e:2x4", [FITS | {"fits": False}], found(16))
    assert line is not None and line.endswith("; choose a smaller sample.batch_size")


def test_nothing_is_refused_when_all_fits() -> None:
    assert refusal("v5e:2x4", [FITS], found(64)) is None
