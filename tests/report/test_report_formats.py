"""Numbers on pages read well."""

import pytest

from tpdiff_jax.report.formats import byte_count, figure, percent, seconds, with_prefix


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
        (with_prefix(999_960), "1 M"),
        (with_prefix(-999.6), "-1 k"),
        (with_prefix(999.4), "999"),
        (with_prefix(1e15, "FLOP"), "1 PFLOP"),
        (byte_count(999.96), "1000 B"),
        (byte_count(1023.96 * 1024), "1024 KiB"),
        (percent(12.5), "1250 %"),
        (percent(9.996), "1000 %"),
        (percent(0.99996), "100 %"),
        (seconds(0.0123), "12.3 ms"),
        (seconds(0.99996), "1 s"),
        (seconds(0.9994), "999 ms"),
        (seconds(59.97), "1 min 0 s"),
        (seconds(59.94), "59.9 s"),
        (seconds(65), "1 min 5 s"),
        (seconds(7500), "2 h 5 min"),
        (seconds(None), "\u2013"),
    ],
)
def test_numbers_read_well(text, expected):
    assert text == expected
