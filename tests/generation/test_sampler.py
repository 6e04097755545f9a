"""How the sampler's program is compiled; what it makes is tested with runs and samplers."""

from types import SimpleNamespace

import jaxlib
import numpy as np
import pytest

from tests.forced_devices import last_line_on
from tests.tiny import tiny_config
from tpdiff_jax.devices.compiler_options import quick_options
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.generation.sampler import Sampler
from tpdiff_jax.models import AnimateDiff, AnimateDiffConfig
from tpdiff_jax.models.layers.block_stack import with_scanned_blocks

ON_THREE = """
import jax
import numpy as np
from tests.tiny import tiny_config
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.generation.sampler import Sampler
from tpdiff_jax.training.initial_state import make_state, run_keys

config = tiny_config(pyramid__frame_strides=(1,), sample__num_steps=1)
try:
    build_experiment(config)
except ValueError as error:
    refusal = str(error)
videos = []
for devices in (jax.devices()[:1], jax.devices()):
    experiment = build_experiment(config, devices, is_for_training=False)
    params = make_state(experiment, run_keys(0)[0]).ema_params
    cond = experiment.dataset.requests(5).cond
    videos.append(Sampler(experiment)(params, cond, seed=1, batch_size=4))
print(refusal, videos[0].shape, np.abs(videos[0] - videos[1]).max() < 1e-4)
"""


def test_videos_are_made_on_machines_that_divide_no_batch_of_the_run():
    """Three devices: the run's batches of 8 are for training alone, those of 4 are padded to 6."""
    refusal = "train.batch_size=8 must be a multiple of mesh.data=3 * mesh.fsdp=1"
    assert last_line_on(3, ON_THREE) == f"{refusal} (5, 8, 32, 32, 1) True"


def test_blocks_are_compiled_once_though_training_unrolls_them():
    programs = {
        is_scanned: Sampler(build_experiment(tiny_config(model__scan_layers=is_scanned))).trace(2)
        for is_scanned in (False, True)
    }
    assert str(programs[False].jaxpr) == str(programs[True].jaxpr)


def test_a_network_without_a_stack_stays_as_it_is():
    network = AnimateDiff(AnimateDiffConfig(channels=4))
    assert with_scanned_blocks(network) is network


LEVEL, EMITTERS = {"xla_backend_optimization_level": 1}, {"xla_cpu_use_fusion_emitters": False}


@pytest.mark.parametrize(
    "platform, release, flags, options",
    [
        ("cpu", "0.12.0", "", LEVEL),
        ("cpu", "0.10.2", "", LEVEL | EMITTERS),
        ("cpu", "0.10.2", "--xla_force_host_platform_device_count=2", LEVEL | EMITTERS),
        ("cpu", "0.10.2", "--xla_backend_optimization_level=0", EMITTERS),
        ("cpu", "0.10.2", "--xla_cpu_use_fusion_emitters=true", LEVEL),
        ("cpu", "0.12.0", "--xla_backend_optimization_level=0", None),
        ("gpu", "0.10.2", "", None),
        ("tpu", "0.12.0", "", None),
    ],
)
def test_a_cpu_compiles_quickly_where_nobody_said_how(
    platform, release, flags, options, monkeypatch
):
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setattr(jaxlib, "__version__", release)
    mesh = SimpleNamespace(devices=np.array([SimpleNamespace(platform=platform)]))
    assert quick_options(mesh) == options
