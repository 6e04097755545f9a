"""What `bench.gpu_suite` checks: kernels against exact ones, memory against plans, resumed runs."""

import functools
import json
import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.attention import TOLERANCES, relative
from bench.gpu_rows import Row, Watch, attempt
from bench.gpu_sizes import DIT, Size
from bench.memory import AIM, measure_stage
from bench.step_case import random_batch
from experiments.grid.overrides import merge_overrides, read_config
from tpdiff_jax.experiment.build import Experiment, build_experiment
from tpdiff_jax.models.layers.attention_kernels import KERNELS, choose_kernel
from tpdiff_jax.train import train
from tpdiff_jax.types import Array

FAR_OFF = TOLERANCES["bfloat16"]


def attention(size: Size, watch: Watch) -> Iterator[Row]:
    """The kernel that networks get in bfloat16, against XLA's in float32: forward and gradients."""
    for shape in size.attention:
        watch.check()
        *sizes, is_masked = shape
        name = "x".join(map(str, sizes)) + (", keys hidden" if is_masked else "")
        yield attempt(name, functools.partial(attention_figures, *shape))


def attention_figures(
    batch: int, tokens: int, heads: int, channels: int, is_masked: bool
) -> dict[str, Any]:
    """Return the relative errors of the output and of the gradients to queries, keys and values.

    Args:
        batch: samples.
        tokens: of each, queries as keys.
        heads: of attention.
        channels: of a head.
        is_masked: whether each sample hides another third of its keys.
    """
    rng = np.random.default_rng(tokens + channels)
    shape = (batch, tokens, heads, channels)
    arrays = [jnp.asarray(rng.standard_normal(shape), jnp.bfloat16) for _ in range(4)]
    mask = jnp.asarray(rng.permuted(np.arange(batch * tokens).reshape(batch, tokens) % 3, axis=1))
    key_mask = mask != 0 if is_masked else None

    def outputs(kernel: str, dtype: Any) -> list[Array]:
        q, k, v, cotangent = (array.astype(dtype) for array in arrays)

        def run(*operands: Array) -> Any:
            out, pull = jax.vjp(lambda *args: KERNELS[kernel](*args, key_mask), *operands)
            return out, *pull(cotangent)

        # On GPUs products of float32 are of fewer bits unless the most are asked for.
        with jax.default_matmul_precision("highest"):
            return list(jax.jit(run)(q, k, v))

    backend = jax.default_backend()
    kernel = choose_kernel("auto", backend, "bfloat16", tokens, head_dim=channels)
    exact, found, plain = (
        outputs("xla", jnp.float32),
        outputs(kernel, jnp.bfloat16),
        outputs("xla", jnp.bfloat16),
    )
    names = ("output", "to queries", "to keys", "to values")
    errors = {n: relative(a, b) for n, a, b in zip(names, found, exact, strict=True)}
    beside = {n: relative(a, b) for n, a, b in zip(names, plain, exact, strict=True)}
    return {
        "kernel": kernel,
        "errors": errors,
        "errors_of_xla_in_bfloat16": beside,
        "is_within_aim": all(error <= FAR_OFF for error in errors.values()),  # NaN is not
    }


def memory(size: Size, watch: Watch) -> Iterator[Row]:
    """The peak of a training step, measured, planned and compiled, coarsest stage first.

    A device tells its highest peak since it was started, and stages need more and more.
    """
    fields = {**size.dit, "model.dtype": "bfloat16"}
    config = read_config(DIT, merge_overrides({}, fields))
    experiment = build_experiment(config, frame_shape=size.dit_shape)
    for i in range(len(experiment.programs)):
        watch.check()
        yield attempt(f"stage {i}", functools.partial(memory_figures, experiment, i))


def memory_figures(experiment: Experiment, stage_index: int) -> dict[str, Any]:
    """Return planned, compiled and measured bytes of a step, and how far off the plan was.

    Args:
        experiment: what is trained.
        stage_index: stage, 0 is the coarsest.
    """
    batch = random_batch(experiment.programs[stage_index])
    found = measure_stage(experiment, stage_index, batch)
    off = found["measured"] / found["planned"] - 1.0
    return {**found, "departure": off, "is_within_aim": abs(off) <= AIM}


def resume(size: Size, watch: Watch) -> Iterator[Row]:
    """A run that was stopped and resumed, against one that was not: the bits of its losses."""
    yield attempt("resumed run", lambda: resume_figures(size))


def resume_figures(size: Size) -> dict[str, Any]:
    """Train in one go, and in two; return the losses of both as exact numbers.

    Args:
        size: of the run.
    """
    stop, end = size.resume_steps
    with tempfile.TemporaryDirectory() as folder:
        whole, parts = (pathlib.Path(folder) / name for name in ("whole", "parts"))
        for workdir, length in ((whole, end), (parts, stop), (parts, end)):
            train(build_experiment(_resume_config(size, length)), workdir)
        lines = {path: _losses(path) for path in (whole, parts)}
    steps = sorted(lines[whole])
    differ = [step for step in steps if lines[whole][step] != lines[parts].get(step)]
    return {
        "stopped_at": stop,
        "steps": end,
        "steps_that_differ": differ,
        "differ_before_the_stop": [step for step in differ if step <= stop],
        "loss_of_last_step": [float.fromhex(lines[p][end][0]) for p in (whole, parts)],
        "is_within_aim": bool(steps) and not differ,
    }


def _resume_config(size: Size, num_steps: int) -> Any:
    fields: dict[str, Any] = {
        "optim.schedule": "constant", "optim.warmup_steps": 1, "train.log_every_steps": 1,
        "train.checkpoint_every_steps": size.resume_steps[0], "train.num_steps": num_steps,
        "train.sample_every_steps": 0, "train.eval_every_steps": 0, "sample.num_steps": 3,
        "sample.num_videos": 2, "sample.batch_size": 2, "eval.num_videos": 2,
        "eval.batch_size": 2, "log.sinks": ("jsonl",),
    }  # fmt: skip
    return read_config("configs/flow.py", merge_overrides({}, {**fields, **size.resume}))


def _losses(workdir: pathlib.Path) -> dict[int, tuple[str, str]]:
    """Loss and gradient norm of each step, exactly."""
    found = {}
    for line in (workdir / "metrics.jsonl").read_text().splitlines():
        entry: Mapping[str, Any] = json.loads(line)
        if "step_loss" in entry:
            exact = (float(entry[name]).hex() for name in ("step_loss", "step_grad_norm"))
            found[entry["step"]] = tuple(exact)
    return found  # type: ignore[return-value]
