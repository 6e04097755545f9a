"""What `bench.gpu_suite` times, and all its parts: each yields rows as soon as they are known.

A row whose name was there before takes its place: timings are told after every round.
"""

import argparse
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from bench.cost import twin_facts
from bench.cost_cases import build_twins, step_cases
from bench.cost_summary import training_summary
from bench.gpu_checks import attention, memory, resume
from bench.gpu_rows import (
    Row,
    Watch,
    attempt,
    failed_row,
    first_calls,
    forget_programs,
    timed_rounds,
)
from bench.gpu_sizes import DIT, Overrides, Size, batch_fields
from bench.latency import latency_row, sampling_case
from bench.step_case import random_batch
from bench.timing import quartiles
from experiments.grid.overrides import merge_overrides
from experiments.pages.paper_tables import SECONDS
from tpdiff_jax.devices.peak import measure_matmul_flops
from tpdiff_jax.planning.chips import chip_of_device_kind


class SkippedPart(Exception):
    """A part that cannot be measured here, and why."""


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


def pytorch(size: Size, watch: Watch) -> Iterator[Row]:
    """The video DiT here and in PyTorch: eager first, then compiled too."""
    try:
        from bench import pytorch as twin  # torch is not among what the package needs

        twin.torch_device()
    except (ImportError, ValueError) as error:
        raise SkippedPart(str(error)) from error
    rounds = size.rounds
    dit = {"network": "video_dit", "scan": True}  # scanned as in configs/dit_2b.py
    fields = {**size.pytorch, **dit, "dtype": "bfloat16", "clock": "wall"}
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


MEASURES: dict[str, Callable[[Size, Watch], Iterator[Row]]] = {
    "attention": attention,
    "steps": steps,
    "sampling": sampling,
    "pytorch": pytorch,
    "memory": memory,
    "resume": resume,
    "training": training,
}
"""What measures a part."""
