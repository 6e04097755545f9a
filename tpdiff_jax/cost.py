"""What a run has spent and how fast it goes, from step counts and FLOPs of a step.

    train_flops     the network alone: forward, and what training needs backward (clip_flops.py)
    counted_flops   that, the pairing of noise, the optimizer's matrix products and the average

Neither credits recomputation. Equal FLOPs of experiments and the share of the peak mean the first;
the second differs where the optimizer multiplies matrices, which does not shrink with the frames.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax

from tpdiff_jax import method
from tpdiff_jax.experiment import Experiment
from tpdiff_jax.infra.peak import measure_matmul_flops
from tpdiff_jax.infra.step_window import StepWindow
from tpdiff_jax.planning.program_flops import matmul_flops

AVERAGE_FLOPS = 3.0  # of a parameter: decay * average + (1 - decay) * parameter


class StepFlops(NamedTuple):
    """FLOPs of one training step.

    Attributes:
        network: `Experiment.train_flops`.
        alignment: matrix products that pair noise with clips, and lift it to the stage.
        update: matrix products of the optimizer, and the moving average.
    """

    network: float
    alignment: float
    update: float


def step_flops(experiment: Experiment) -> tuple[StepFlops, ...]:
    """Return the FLOPs of each of `experiment.programs`; traced, nothing is compiled."""
    update = _update_flops(experiment)  # whatever the stage
    return tuple(
        StepFlops(program.train_flops, _alignment_flops(*program), update)
        for program in experiment.programs
    )


def _alignment_flops(experiment: Experiment, stage_index: int) -> float:
    task, clips = experiment.task, experiment.clip_facts
    batch_size = experiment.batch_sizes[stage_index]
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch_size))
    shape = (batch_size, clips.num_frames, *clips.frame_shape)
    noise = jax.make_jaxpr(
        lambda x_0, keys: method.aligned_noise(task.pyramid, stage_index, x_0, keys, task.alignment)
    )(jax.ShapeDtypeStruct(shape, "float32"), keys)
    return matmul_flops(noise.jaxpr)


def _update_flops(experiment: Experiment) -> float:
    optimizer, adaptation = experiment.task.optimizer, experiment.task.adaptation
    params = jax.eval_shape(
        lambda key: adaptation.split(experiment.network.init(key), key)[0], jax.random.key(0)
    )
    opt_state = jax.eval_shape(optimizer.init, params)
    update = jax.make_jaxpr(optimizer.update)(params, opt_state, params)
    num_params = sum(leaf.size for leaf in jax.tree.leaves(params))
    return matmul_flops(update.jaxpr) + AVERAGE_FLOPS * num_params


class CostMeter:
    """Turns step counts into samples, frames, FLOPs and their rates."""

    def __init__(self, experiment: Experiment, window: StepWindow) -> None:
        """Measure the machine's peak and remember where the run stands."""
        self._programs = experiment.programs
        self._window = window
        self._counted = [sum(flops) for flops in step_flops(experiment)]
        self.peak_flops = measure_matmul_flops() * jax.device_count()
        self._last_counts = list(window.counts)
        self._last_seconds = sum(window.seconds)
        self._last_time = time.perf_counter()

    def spent(self) -> dict[str, float]:
        """Return what the run has spent so far."""
        counts = self._window.counts
        return {
            "samples_seen": self._clips(counts),
            "train_flops": self._flops(counts),
            "counted_flops": sum(n * f for n, f in zip(counts, self._counted, strict=True)),
            "train_seconds": sum(self._window.seconds),
            "skipped_steps": self._window.num_skipped,
            "spike_steps": self._window.num_spikes,
        }

    def rates(self) -> dict[str, float]:
        """Return the rates since the last call: videos by the clock, FLOPs by device time."""
        counts, seconds = list(self._window.counts), sum(self._window.seconds)
        now = time.perf_counter()
        new = [a - b for a, b in zip(counts, self._last_counts, strict=True)]
        wall, busy = now - self._last_time, max(seconds - self._last_seconds, 1e-9)
        self._last_counts, self._last_seconds, self._last_time = counts, seconds, now
        num_frames = sum(
            n * program.batch_size * program.num_frames
            for n, program in zip(new, self._programs, strict=True)
        )
        return {
            "videos_per_second": self._clips(new) / wall,
            "frames_per_second": num_frames / wall,
            "flops_per_second": self._flops(new) / busy,
            "peak_share": self._flops(new) / busy / self.peak_flops,
        }

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time inside out of the rates: it goes into something else than training."""
        start = time.perf_counter()
        yield
        self._last_time += time.perf_counter() - start

    def _clips(self, counts: Sequence[int]) -> int:
        return sum(n * p.batch_size for n, p in zip(counts, self._programs, strict=True))

    def _flops(self, counts: Sequence[int]) -> float:
        return sum(n * p.train_flops for n, p in zip(counts, self._programs, strict=True))
