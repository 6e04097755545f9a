"""Measured spectra and detail shares against closed forms in numpy, and figures known elsewhere."""

import re

import numpy as np
import pytest

from tests.tiny import REPO
from tpdiff_jax.advice.advice_text import REAL_FOOTAGE
from tpdiff_jax.advice.clip_spectrum import measure_spectrum
from tpdiff_jax.advice.detail_share import detail_share, fitting_length, shown_matrix
from tpdiff_jax.data import MovingDigitsSpec
from tpdiff_jax.method.axis_matrices import cosine_basis


def shares(cov, upsample):
    return [detail_share(cov, stride, upsample) for stride in (2, 4, 8)]


@pytest.mark.parametrize(
    "upsample, expected",
    [
        # Of n frames a copy n - 1 are wrong, by twice the variance.
        ("nearest", [2 * (1 - 1 / r) for r in (2, 4, 8)]),
        ("dct", [1 - 1 / r for r in (2, 4, 8)]),
        ("insert", [1 - 1 / r for r in (2, 4, 8)]),
    ],
)
def test_frames_with_nothing_in_common(upsample, expected):
    np.testing.assert_allclose(shares(np.eye(16), upsample), expected, rtol=1e-12)


@pytest.mark.parametrize("upsample", ["nearest", "linear", "dct"])
@pytest.mark.parametrize("num_frames", [8, 9, 16, 17])
def test_a_still_clip_has_no_detail(upsample, num_frames):
    still = np.ones((num_frames, num_frames))
    found = [detail_share(still, stride, upsample) for stride in (2, 4)]
    np.testing.assert_allclose(found, 0.0, atol=1e-12)


def test_frames_that_forget_at_a_steady_rate():
    # C = a^|f-g|: a copy n frames away is wrong by 2 (1 - a^n); the mean of two neighbours at
    # distance 1 by 1 + (1 + a^2)/2 - 2 a, and the last frame, past the last known one, is a copy.
    a = 0.9
    cov = a ** np.abs(np.subtract.outer(np.arange(16), np.arange(16)))
    expected = [np.mean([2 * (1 - a**n) for n in range(r)]) for r in (2, 4, 8)]
    np.testing.assert_allclose(shares(cov, "nearest"), expected, rtol=1e-12)
    between = 1 + (1 + a**2) / 2 - 2 * a
    expected = (7 * between + 2 * (1 - a)) / 16
    assert detail_share(cov, 2, "linear") == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("cycles, left", [(0, 0.0), (3, 0.0), (7, 0.0), (8, 1.0), (15, 1.0)])
def test_cosines_keep_what_is_slow_and_nothing_else(cycles, left):
    wave = np.cos(np.pi * cycles * (2 * np.arange(16) + 1) / 32)
    share = detail_share(np.outer(wave, wave), 2, "dct")
    assert share == pytest.approx(left, abs=1e-12)


def test_lengths_that_a_stride_does_not_fit_are_cut():
    fits = [(16, 8, 16), (17, 8, 17), (21, 8, 17), (30, 4, 29), (13, 2, 13), (9, 8, 9), (5, 4, 5)]
    fits += [(7, 4, 5), (6, 4, 5), (4, 4, 0), (3, 4, 0), (2, 2, 0), (4, 2, 4), (3, 2, 3)]
    assert [(n, r, fitting_length(n, r)) for n, r, _ in fits] == fits
    assert detail_share(np.eye(3), 8, "nearest") is None
    for length in (16, 17):
        shown = shown_matrix(length, 4, "dct")
        np.testing.assert_allclose(shown @ shown, shown, atol=1e-12)
        assert np.linalg.matrix_rank(shown) == (length + 3) // 4


def test_unknown_upsampling():
    with pytest.raises(ValueError, match=r"pyramid\.upsample is 'cubic'"):
        shown_matrix(8, 2, "cubic")


@pytest.mark.parametrize("shape", [(6, 8, 8, 1), (5, 6, 10, 3), (4, 1, 7, 2)])
def test_the_bands_add_up_to_the_pixels(shape):
    rng = np.random.default_rng(0)
    clips = rng.normal(size=(7, *shape)) * np.linspace(1, 2, shape[0])[:, None, None, None] + 5.0
    spectrum = measure_spectrum(clips)
    centred = clips - clips.mean((0, 1))
    total = np.einsum("nfhwc,nghwc->fg", centred, centred) / len(clips)
    np.testing.assert_allclose(spectrum.total_cov, total, rtol=1e-10)
    assert spectrum.counts.sum() == np.prod(shape[1:])
    assert spectrum.variance == pytest.approx(np.mean(centred**2), rel=1e-10)
    assert np.all(np.diff(spectrum.frequencies) > 0)
    np.testing.assert_allclose(spectrum.means, clips.mean((0, 1, 2, 3)), rtol=1e-10)
    assert spectrum.counts[0] == shape[3]  # the mean of a frame stands alone


def test_a_wave_lies_in_the_band_of_its_frequency():
    basis = cosine_basis(16)
    np.testing.assert_allclose(basis @ basis.T, np.eye(16), atol=1e-12)
    rng = np.random.default_rng(1)
    for u, v in [(0, 0), (1, 0), (3, 4), (15, 15)]:
        wave = np.outer(basis[u], basis[v])[None, :, :, None]
        clips = rng.normal(size=(5, 4, 1, 1, 1)) * wave
        spectrum = measure_spectrum(clips)
        powers = np.trace(spectrum.covs, axis1=1, axis2=2) * spectrum.counts
        band = int(np.argmax(powers))
        assert powers[band] == pytest.approx(powers.sum(), rel=1e-9)
        nearest = np.abs(spectrum.frequencies - np.hypot(u, v) / 32).argmin()
        assert abs(nearest - band) <= 1


def test_a_mean_picture_is_no_variance():
    picture = np.random.default_rng(2).normal(size=(1, 1, 4, 4, 1))
    with pytest.raises(ValueError, match="the clips do not vary"):
        measure_spectrum(np.broadcast_to(picture, (3, 5, 4, 4, 1)))
    still = np.random.default_rng(3).normal(size=(6, 1, 4, 4, 1)) * np.ones((6, 5, 4, 4, 1))
    cov = measure_spectrum(still).total_cov
    assert detail_share(cov, 2, "nearest") == pytest.approx(0.0, abs=1e-12)


def test_what_cannot_be_measured():
    with pytest.raises(ValueError, match="no clips"):
        measure_spectrum([])
    with pytest.raises(ValueError, match="not finite"):
        measure_spectrum([np.full((2, 2, 2, 1), np.nan)])
    with pytest.raises(ValueError, match=r"shapes \(2, 2, 2, 1\) and \(3, 2, 2, 1\)"):
        measure_spectrum([np.zeros((2, 2, 2, 1)), np.zeros((3, 2, 2, 1))])


@pytest.mark.parametrize("stratum, expected", [("all", (0.41, 0.95)), ("slow", (0.22, 0.68))])
def test_moving_digits(stratum, expected):
    """Figures found by an independent measurement, of copies over 2 and 4 frames."""
    dataset = MovingDigitsSpec(speed_stratum=stratum)
    spectrum = measure_spectrum(dataset.clip("train", 0, index)["video"] for index in range(192))
    found = shares(spectrum.total_cov, "nearest")[:2]
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_the_ranges_of_real_footage_are_those_of_the_table():
    text = (REPO / "docs" / "advise.md").read_text()
    rows = [line.split("|")[1:4] for line in text.splitlines() if line.startswith("| ")]
    found = {}
    rates = {"25": "25 to 30", "12.5": "12 to 15"}
    for words, two, four in (row for row in rows if ", " in row[0] and len(row) == 3):
        number = re.search(r"(12\.5|25)\b", words)
        if number and re.fullmatch(r"\s*\.\d+\s*", two):
            at_rate = found.setdefault(rates[number[1]], {"2": [], "4": []})
            at_rate["2"].append(float(two))
            at_rate["4"].append(float(four))
    assert {len(values["2"]) for values in found.values()} == {4}
    assert REAL_FOOTAGE == {
        rate: {stride: (min(shares), max(shares)) for stride, shares in values.items()}
        for rate, values in found.items()
    }
