"""How the sampler's program is compiled; what it makes is tested with runs and samplers."""

from types import SimpleNamespace

import numpy as np
import pytest

from tests.tiny import tiny_config
from tpdiff_jax.devices.compiler_options import quick_options
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.generation.sampler import Sampler
from tpdiff_jax.models import AnimateDiff, AnimateDiffConfig
from tpdiff_jax.models.layers.block_stack import with_scanned_blocks


def test_blocks_are_compiled_once_though_training_unrolls_them():
    programs = {
        is_scanned: Sampler(build_experiment(tiny_config(model__scan_layers=is_scanned))).trace(2)
        for is_scanned in (False, True)
    }
    assert str(programs[False].jaxpr) == str(programs[True].jaxpr)


def test_a_network_without_a_stack_stays_as_it_is():
    network = AnimateDiff(AnimateDiffConfig(channels=4))
    assert with_scanned_blocks(network) is network


@pytest.mark.parametrize(
    "platform, flags, options",
    [
        ("cpu", "", {"xla_backend_optimization_level": 1}),
        ("cpu", "--xla_force_host_platform_device_count=2", {"xla_backend_optimization_level": 1}),
        ("cpu", "--xla_backend_optimization_level=0", None),
        ("gpu", "", None),
        ("tpu", "", None),
    ],
)
def test_only_a_cpu_that_nobody_told_a_level_compiles_at_the_first(
    platform, flags, options, monkeypatch
):
    monkeypatch.setenv("XLA_FLAGS", flags)
    mesh = SimpleNamespace(devices=np.array([SimpleNamespace(platform=platform)]))
    assert quick_options(mesh) == options
