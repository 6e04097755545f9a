"""Planned memory is what a training step takes: the compiled step's own peak, and the process's."""

import json
import os
import subprocess
import sys
import threading

import jax.numpy as jnp
import numpy as np
import pytest

from bench import memory
from bench.memory import PeakMeter, main, write_page
from tests.tiny import REPO, flags_of_sizes, tiny_config
from tpdiff_jax.experiment.build import build_experiment

MEBIBYTE = 2**20
# Wide enough that 600 MiB of state and temporaries hide what a process holds beside them.
WIDE = (
    "--config.model.hidden_size=512", "--config.model.depth=2", "--config.model.num_heads=4",
    "--config.pyramid.frame_strides=(1,)", "--config.sample.num_steps=1",
)  # fmt: skip


def test_the_meter_sees_a_peak_that_has_passed():
    held = jnp.ones(16 * MEBIBYTE, jnp.uint8)
    meter = PeakMeter({"held": held})
    np.ones(64 * MEBIBYTE, np.uint8).sum()
    assert 75 * MEBIBYTE < meter.peak_bytes() < 105 * MEBIBYTE
    assert PeakMeter({}).peak_bytes() < 10 * MEBIBYTE


def test_the_meter_waits_until_what_a_step_took_is_given_back():
    held = jnp.ones(64 * MEBIBYTE, jnp.uint8)
    meter = PeakMeter({"held": held})
    late = [np.ones(64 * MEBIBYTE, np.uint8)]
    timer = threading.Timer(1.0, late.clear)
    timer.start()
    meter.let_go()
    assert not late, "it went on while the memory was still taken"
    assert 120 * MEBIBYTE < meter.peak_bytes() < 150 * MEBIBYTE


def test_the_page_shows_how_far_off_the_plan_was():
    stage = {"stage": 0, "shape": [4, 16, 32], "planned_state": 50 * MEBIBYTE}
    stage |= {"planned": 200 * MEBIBYTE, "compiled": 200 * MEBIBYTE, "measured": 210 * MEBIBYTE}
    report = {
        "device": {"platform": "cpu", "kind": "cpu", "num_devices": 1},
        "command": "python -m bench.memory",
        "stages": [stage],
    }
    assert "| 0 | 4 x 16 x 32 | 50 | 200 | 200 | 210 | +5.0% |" in write_page(report)


def test_every_stage_is_measured_with_clips_of_its_own_number():
    experiment = build_experiment(
        tiny_config(pyramid__frame_strides=(2, 1), train__batch_per_stage="tokens")
    )
    rows = [memory.measure_stage(experiment, stage) for stage in (0, 1)]
    assert [row["shape"][0] for row in rows] == [4, 8] and all(row["measured"] for row in rows)


def test_bad_input_is_one_line(tmp_path, capsys):
    assert main([f"--out={tmp_path}", "--config.train.num_steps=many"]) == memory.EXIT_BAD_INPUT
    assert "num_steps" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [1, 8])
def test_a_step_takes_what_was_planned(tmp_path, num_devices):
    """In a process of its own: what other tests have left would be reused, and not be seen.

    With one arena, as in training: in several the C library keeps parts of what was freed.
    """
    forced = f"--xla_force_host_platform_device_count={num_devices} " + os.environ["XLA_FLAGS"]
    flags = [*flags_of_sizes(), *WIDE, f"--config.mesh.fsdp={num_devices}"]
    subprocess.run(
        [sys.executable, "-m", "bench.memory", f"--out={tmp_path}", *flags],
        cwd=REPO,
        env=os.environ | {"XLA_FLAGS": forced, "MALLOC_ARENA_MAX": "1"},
        check=True,
        timeout=900,
    )
    (stage,) = json.loads((tmp_path / "memory.json").read_text())["stages"]
    assert stage["planned"] == pytest.approx(stage["compiled"], rel=0.01)
    assert 0.2 * stage["planned"] < stage["planned_state"] < 0.6 * stage["planned"]
    assert stage["measured"] == pytest.approx(stage["planned"], rel=memory.AIM)
