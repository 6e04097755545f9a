"""From raw timings to the figures: ratios within rounds, beside what the FLOP model says."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bench.cost_cases import call_name, noise_name, sample_name, step_name
from bench.timing import FloatArray, quartiles, weighted_sum
from tpdiff_jax.types import Shape

Seconds = Mapping[str, FloatArray]
TOLERANCE = 0.05  # aim: measured ratio within this of the FLOP model's
ALIGNMENT_AIM = 0.01  # aim: share of a step that mode "nearest" may take


class Twin(NamedTuple):
    """What the figures need to know of one experiment.

    Attributes:
        shapes: frames, height and width of each stage.
        probs: probability of each stage in training.
        step_flops: FLOPs of a training step of each stage.
        steps: solver steps of each stage.
        call_flops: FLOPs of one network call of each stage, guidance included.
    """

    shapes: Sequence[Shape]
    probs: Sequence[float]
    step_flops: Sequence[float]
    steps: Sequence[int]
    call_flops: Sequence[float]


def training_summary(
    seconds: Seconds, twins: Mapping[str, Twin], mode: str, peak: float
) -> dict[str, Any]:
    """Return the step's mean cost over the stages, pyramid over vanilla, and each stage's rate.

        ratio = sum_i p_i seconds_i / seconds_vanilla,  model = the same of FLOPs

    Args:
        seconds: timings by case.
        twins: "pyramid" and "vanilla".
        mode: alignment mode of both.
        peak: FLOP/s of a matrix product on this machine.
    """
    means, flops, rows = {}, {}, []
    for name, twin in twins.items():
        columns = [seconds[step_name(name, mode, i)] for i in range(len(twin.shapes))]
        means[name] = weighted_sum(columns, twin.probs)
        flops[name] = sum(p * f for p, f in zip(twin.probs, twin.step_flops, strict=True))
        rows += [
            rate_row(name, i, twin.shapes[i], twin.step_flops[i], column, peak)
            for i, column in enumerate(columns)
        ]
    return {
        **_against_model(means["pyramid"] / means["vanilla"], flops["pyramid"] / flops["vanilla"]),
        "stages": rows,
    }


def sampling_summary(seconds: Seconds, twins: Mapping[str, Twin], peak: float) -> dict[str, Any]:
    """Return the cost of sampling, pyramid over vanilla, and of each stage's network calls.

    `calls_share` is the part of a sampler's time that its network calls take by themselves.
    """
    flops, rows, shares = {}, [], {}
    for name, twin in twins.items():
        columns = [seconds[call_name(name, i)] for i in range(len(twin.shapes))]
        flops[name] = sum(n * f for n, f in zip(twin.steps, twin.call_flops, strict=True))
        in_calls = weighted_sum(columns, twin.steps)
        shares[name] = quartiles(in_calls / seconds[sample_name(name)])._asdict()
        rows += [
            rate_row(name, i, twin.shapes[i], twin.call_flops[i], column, peak)
            for i, column in enumerate(columns)
        ]
    ratio = seconds[sample_name("pyramid")] / seconds[sample_name("vanilla")]
    totals = {name: quartiles(seconds[sample_name(name)])._asdict() for name in twins}
    return {
        **_against_model(ratio, flops["pyramid"] / flops["vanilla"]),
        "seconds": totals,
        "calls_share": shares,
        "stages": rows,
    }


def alignment_summary(
    seconds: Seconds, pyramid: Twin, modes: Sequence[str]
) -> list[dict[str, Any]]:
    """Return what each mode adds to a step, as a share of the step without alignment.

        in the step: (step_mode - step_none) / step_none
        alone:       (noise_mode - noise_none) / step_none

    The second has the finer resolution, because nothing else is timed with it; the first includes
    what the compiler fuses.

    Args:
        seconds: timings by case.
        pyramid: the pyramid's facts.
        modes: modes other than "none".

    Returns:
        One row for each mode and stage, and one for the mean over the stages (`stage` None).
    """
    stages = range(len(pyramid.shapes))
    rows = []
    for mode in modes:
        added, alone, plain = [], [], []
        for i in stages:
            plain.append(seconds[step_name("pyramid", "none", i)])
            added.append(seconds[step_name("pyramid", mode, i)] - plain[-1])
            alone.append(seconds[noise_name(mode, i)] - seconds[noise_name("none", i)])
            rows.append(_alignment_row(mode, i, added[-1], alone[-1], plain[-1]))
        means = (weighted_sum(columns, pyramid.probs) for columns in (added, alone, plain))
        rows.append(_alignment_row(mode, None, *means))
    return rows


def _alignment_row(
    mode: str, stage: int | None, added: FloatArray, alone: FloatArray, plain: FloatArray
) -> dict[str, Any]:
    return {
        "mode": mode,
        "stage": stage,
        "share_in_step": quartiles(added / plain)._asdict(),
        "share_alone": quartiles(alone / plain)._asdict(),
        "seconds_alone": quartiles(alone)._asdict(),
    }


def rate_row(
    name: str, stage: int, shape: Shape, flops: float, seconds: FloatArray, peak: float
) -> dict[str, Any]:
    """Return a stage's time and the FLOP/s that it reaches."""
    time = quartiles(seconds)
    return {
        "twin": name,
        "stage": stage,
        "shape": list(shape),
        "flops": flops,
        "seconds": time._asdict(),
        "flops_per_second": flops / time.median,
        "peak_share": flops / time.median / peak,
    }


def _against_model(ratio: FloatArray, model: float) -> dict[str, Any]:
    measured = quartiles(ratio)
    departure = measured.median / model - 1.0
    return {
        "ratio": measured._asdict(),
        "model_ratio": model,
        "departure": departure,
        "is_within_aim": abs(departure) <= TOLERANCE,
    }
