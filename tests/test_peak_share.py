"""The peak that a run's FLOP/s are a share of is that of the type which its network computes in."""

import pathlib

import pytest

from tests.tiny import tiny_config
from tpdiff_jax import train
from tpdiff_jax.experiment.build import build_experiment

PEAKS = {"float32": 1e9, "bfloat16": 2e9}


@pytest.mark.parametrize("dtype", PEAKS)
def test_a_run_is_compared_with_products_of_its_own_type(
    dtype: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU multiplies bfloat16 numbers at least twice as fast as float32."""
    monkeypatch.setattr(train, "peak_matmul_flops", PEAKS.__getitem__)
    experiment = build_experiment(tiny_config(model__dtype=dtype))
    log = train.open_run_log(experiment, tmp_path, None, train.open_goodput(tmp_path, None))
    with log:
        assert log.figures().timing["peak_flops_per_second"] == PEAKS[dtype]
