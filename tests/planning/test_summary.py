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


def test_without_a_roofline_there_are_no_rates() -> None:
    rows = [ROWS[0], ROWS[1] | {"roofline": None}]
    assert training_summary(rows, (0.5, 0.5), num_chips=1, num_clips=1) is None


FITS = {"name": "sampler", "fits": True, "needed_bytes": 1.0}
TOO_BIG = {"name": "train stage 2", "fits": False, "needed_bytes": 3 * 2.0**30}


@pytest.mark.parametrize(
    ("search", "said"),
    [
        (None, "train stage 2 does not fit v5e:2x4 at train.batch_size=64 (3.00 GiB a device)"),
        ({"batch_size": 16}, "the largest that fits is 16"),
        ({"batch_size": 0}, "nothing fits"),
    ],
)
def test_the_refusal_names_program_batch_and_what_would_fit(search: dict, said: str) -> None:
    line = refusal("v5e:2x4", 64, [FITS, TOO_BIG], search)
    assert line is not None and said in line and "\n" not in line


def test_nothing_is_refused_when_all_fits() -> None:
    assert refusal("v5e:2x4", 64, [FITS], {"batch_size": 64}) is None
