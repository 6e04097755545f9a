"""What `bench.gpu_suite` measures: each part yields rows as soon as they are known.

A row whose name was there before takes its place: timings are told after every round.
"""

import argparse
import functools
import json
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.attention import TOLERANCES, relative
from bench.cost import twin_facts
from bench.cost_cases import build_twins, step_cases
from bench.cost_summary import training_summary
from bench.gpu_rows import (
    Row,
    Watch,
    attempt,
    failed_row,
    first_calls,
    forget_programs,
    timed_rounds,
)
from bench.gpu_sizes import Overrides, Size, batch_fields
from bench.latency import latency_row, sampling_case
from bench.memory import AIM, measure_stage
from bench.step_case import random_batch
from bench.timing import quartiles
from experiments.grid.overrides import merge_overrides, read_config
from experiments.pages.paper_tables import SECONDS
from tpdiff_jax.devices.peak import measure_matmul_flops
from tpdiff_jax.experiment.build import Experiment, build_experiment
from tpdiff_jax.models.layers.attention_kernels import KERNELS, choose_kernel
from tpdiff_jax.planning.chips import chip_of_device_kind
from tpdiff_jax.train import train
from tpdiff_jax.types import Array

DIT = "configs/dit_2b.py"
FAR_OFF = TOLERANCES["bfloat16"]


class SkippedPart(Exception):
    """A part that cannot be measured here, and why."""


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

    kernel = choose_kernel("auto", jax.default_backend(), "bfloat16", tokens)
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


def steps(size: Size, watch: Watch) -> Iterator[Row]:
    """Training steps of the video DiT: seconds, share of the peak, pyramid over vanilla."""
    fields = {**size.dit, "model.dtype": "bfloat16"}
    yield from _for_kernels("video DiT", DIT, size.dit_shape, fields, size, watch)


def training(size: Size, watch: Watch) -> Iterator[Row]:
    """Training steps of the systems of the paper, pyramid over vanilla, at random weights."""
    systems = list(size.systems.items())
    for done, (name, system) in enumerate(systems):
        watch.check()
        fields = {**batch_fields(size.batch), **size.system_fields.get(name, {})}
        own = watch.share(len(systems) - done)
        yield from _for_kernels(name, system.config, system.frame_shape, fields, size, own)


def _for_kernels(
    name: str, config: str, shape: tuple[int, ...], fields: Overrides, size: Size, watch: Watch
) -> Iterator[Row]:
    """Time steps with the first attention kernel that works; say what the others ended with."""
    for kernel in size.kernels:
        try:
            yield from _timed_steps(name, config, shape, fields, kernel, size.rounds, watch)
            return
        except Exception as error:
            yield failed_row(f"{name}, attention {kernel}", error)
        finally:
            forget_programs()


def _timed_steps(
    name: str,
    config: str,
    shape: tuple[int, ...],
    fields: Overrides,
    kernel: str,
    rounds: int,
    watch: Watch,
) -> Iterator[Row]:
    overrides = merge_overrides({"model.attention_kernel": kernel}, fields)
    twins = build_twins(config, overrides, shape)
    dtype = twins.pyramid.config.model.dtype
    measured = measure_matmul_flops(dtype)
    chip = chip_of_device_kind(jax.devices()[0].device_kind)
    peak = chip.bf16_flops if chip is not None and dtype == "bfloat16" else measured
    before = watch.gone
    cases = step_cases(twins, (), random_batch(twins.pyramid.programs[0]))
    compile_seconds = watch.gone - before
    first = first_calls(cases)
    facts = {twin: twin_facts(experiment) for twin, experiment in twins.by_name().items()}
    mode = twins.pyramid.task.alignment.mode
    for seconds in timed_rounds(cases, watch, rounds):
        summary = training_summary(seconds, facts, mode, peak)
        yield {
            "name": name,
            **summary,
            "attention_kernel": kernel,
            "batch": twins.pyramid.train.batch_size,
            "peak": peak,
            "peak_of": chip.source if chip is not None and peak != measured else "measured here",
            "measured_peak": measured,
            "compile_seconds": compile_seconds,
            "first_call_seconds": first,
            "seconds": {case: column.tolist() for case, column in seconds.items()},
        }


def sampling(size: Size, watch: Watch) -> Iterator[Row]:
    """30 network calls with guidance at the sizes of the paper, pyramid and vanilla in turn."""
    systems = list(size.systems.items())
    for done, (name, _) in enumerate(systems):
        watch.check()
        own = watch.share(len(systems) - done)
        for kernel in size.kernels:
            try:
                yield from _timed_samplers(name, kernel, size, own)
                break
            except Exception as error:
                yield failed_row(f"{name}, attention {kernel}", error)
            finally:
                forget_programs()


def _timed_samplers(name: str, kernel: str, size: Size, watch: Watch) -> Iterator[Row]:
    system = size.systems[name]
    fields = {**batch_fields(1), **size.system_fields.get(name, {})}
    overrides = merge_overrides({"model.attention_kernel": kernel}, fields)
    twins = build_twins(system.config, overrides, system.frame_shape)
    cases = {
        f"{name} {twin}": sampling_case(experiment, 1)
        for twin, experiment in twins.by_name().items()
    }
    first = first_calls(cases)
    vanilla, pyramid = SECONDS[name]
    for seconds in timed_rounds(cases, watch, size.rounds):
        yield {
            "name": name,
            **latency_row(name, twins, seconds),
            "attention_kernel": kernel,
            "paper_ratio": vanilla / pyramid,
            "first_call_seconds": first,
            "compile_seconds": {c: s - float(np.median(seconds[c])) for c, s in first.items()},
            "seconds": {case: column.tolist() for case, column in seconds.items()},
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


def pytorch(size: Size, watch: Watch) -> Iterator[Row]:
    """The video DiT here and in PyTorch: eager first, then compiled too."""
    try:
        from bench import pytorch as twin  # torch is not among what the package needs

        twin.torch_device()
    except (ImportError, ValueError) as error:
        raise SkippedPart(str(error)) from error
    rounds = size.rounds
    fields = {**size.pytorch, "network": "video_dit", "dtype": "bfloat16", "clock": "wall"}
    for name, is_eager in (("eager", True), ("eager and compiled", False)):
        watch.check()
        options = argparse.Namespace(**fields, rounds=rounds, nocompile=is_eager)
        before = watch.gone
        row = attempt(name, functools.partial(pytorch_figures, twin.measure, options))
        yield {**row, "with_compilation_seconds": watch.gone - before}


def pytorch_figures(
    measure: Callable[[argparse.Namespace], Mapping[str, Any]], options: argparse.Namespace
) -> dict[str, Any]:
    """Return the times of both libraries, and PyTorch's over ours within a round.

    Args:
        measure: `bench.pytorch.measure`.
        options: as its command line has them.

    Raises:
        ValueError: when the networks differ, so that nothing was timed.
    """
    report = measure(options)
    if report["is_different"]:
        raise ValueError(f"the networks differ: {dict(report['differences'])}")
    times, ratios = {}, {}
    for case, column in report["seconds"].items():
        work = case.partition("/")[0]
        ours = np.array(report["seconds"][f"{work}/tpdiff_jax"])
        times[case] = quartiles(np.array(column))._asdict()
        ratios[case] = quartiles(np.array(column) / ours)._asdict()
    kept = ("parameters", "tokens", "forward_flops", "differences", "seconds")
    return {**{name: report[name] for name in kept}, "times": times, "over_ours": ratios}
