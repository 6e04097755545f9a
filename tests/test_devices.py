"""The number of devices changes nothing but speed: same losses, and checkpoints move over."""

import json
import pathlib

import numpy as np
import pytest

from tests.forced_devices import last_line_on

LOSSES = """
import sys, pathlib, json
from tests.tiny import tiny_config
from tpdiff_jax import train
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.run_log.json_lines import read_metrics

workdir, num_steps = pathlib.Path(sys.argv[1]), int(sys.argv[2])
config = tiny_config(
    train__num_steps=num_steps, train__log_every_steps=1, optim__schedule="constant",
    train__checkpoint_every_steps=10, optim__warmup_steps=1, sample__num_videos=1,
)
train.train(build_experiment(config), workdir)
lines = read_metrics(workdir / "metrics.jsonl")
print(json.dumps([line["loss"] for line in lines if "loss" in line]))
"""


def losses_on(num_devices: int, workdir: pathlib.Path, num_steps: int) -> np.ndarray:
    """Train in a process with that many forced host devices; return the loss of every step."""
    line = last_line_on(num_devices, LOSSES, str(workdir), str(num_steps))
    return np.array(json.loads(line))


@pytest.mark.slow
def test_1_2_4_and_8_devices_give_the_same_losses_and_resume_each_others_runs(
    tmp_path: pathlib.Path,
) -> None:
    one = losses_on(1, tmp_path / "1", 28)
    assert len(one) == 28
    for num_devices in (2, 8):
        several = losses_on(num_devices, tmp_path / str(num_devices), 20)
        np.testing.assert_allclose(several[0], one[0], rtol=1e-6)
        np.testing.assert_allclose(several, one[:20], rtol=1e-5)
    # The run on eight devices goes on on four, then on one.
    losses_on(4, tmp_path / "8", 24)
    moved = losses_on(1, tmp_path / "8", 28)
    np.testing.assert_allclose(moved, one, rtol=1e-5)
