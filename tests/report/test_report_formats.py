"""Numbers on pages read well."""

import pytest

from tpdiff_jax.report.formats import figure, seconds, with_prefix


@pytest.mark.parametrize(
    "text, expected",
    [
        (figure(0.95), "0.9500"),
        (figure(12345.678), "12346"),
        (figure(2.5e-7), "2.500e-7"),
        (figure(1234567), "1\u2009234\u2009567"),
        (figure(None), "\u2013"),
        (figure(float("nan")), "\u2013"),
        (with_prefix(1.234e12, "FLOP"), "1.23 TFLOP"),
        (with_prefix(0.5), "0.5"),
        (with_prefix(0), "0"),
        (seconds(0.0123), "12.3 ms"),
        (seconds(65), "1 min 5 s"),
        (seconds(7500), "2 h 5 min"),
        (seconds(None), "\u2013"),
    ],
)
def test_numbers_read_well(text, expected):
    assert text == expected
