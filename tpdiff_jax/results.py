"""results.json: the figures a run ended with, and everything needed to judge them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tpdiff_jax.clips.record_manifest import SPLITS
from tpdiff_jax.data import ENDLESS
from tpdiff_jax.devices.facts import device_facts, package_versions
from tpdiff_jax.evals.measures import Evaluation
from tpdiff_jax.experiment.build import Experiment
from tpdiff_jax.experiment.shapes import ClipsOfShape

_CURVE_POINTS = 201


def stage_table(
    experiment: Experiment, clips: ClipsOfShape, step_seconds: Mapping[int, float]
) -> list[dict[str, Any]]:
    """Return one row a stage: window, shape, cost of a forward pass, measured step time.

    Args:
        experiment: the run.
        clips: of the shape whose stages are told.
        step_seconds: mean time of a training step, by stage; stages that never ran are missing.
    """
    return [
        {
            "index": i,
            "strides": list(stage.strides),
            "shape": list(stage.shape),
            "t_start": float(stage.t_start),
            "t_end": float(stage.t_end),
            "flops_per_video": experiment.network.flops(stage.shape),
            "step_seconds": step_seconds.get(i),
            "steps": experiment.sampler.steps_per_stage[i],
        }
        for i, stage in enumerate(clips.pyramid.stages)
    ]


def bucket_tables(
    experiment: Experiment, step_seconds: Mapping[int, float]
) -> list[dict[str, Any]]:
    """Return the clips of each bucket, its share of the steps, and one row a stage."""
    num_stages, steps = experiment.pyramid.num_stages, experiment.bucket_steps
    return [
        {
            "name": clips.bucket,
            "train_clips": clips.dataset.num_clips("train"),
            "share_of_steps": steps[b] / sum(steps),
            "stages": stage_table(
                experiment, clips, {i - b * num_stages: s for i, s in step_seconds.items()}
            ),
        }
        for b, clips in enumerate(experiment.shapes)
    ]


def schedule_curves(experiment: Experiment) -> dict[str, list[float]]:
    """Return gamma and sigma over noise time, for the picture of the stage windows."""
    t = np.linspace(0.0, 1.0, _CURVE_POINTS)
    path = experiment.pyramid.path
    return {
        "t": t.tolist(),
        "gamma": np.asarray(path.gamma(t), np.float64).tolist(),
        "sigma": np.asarray(path.sigma(t), np.float64).tolist(),
    }


def data_facts(experiment: Experiment) -> dict[str, Any]:
    """Return how many clips the run had and how many of them with a caption, where it is known."""
    shapes = experiment.shapes
    facts: dict[str, Any] = {}
    for split in SPLITS:
        counts = [clips.dataset.num_clips(split) for clips in shapes]
        if max(counts) < ENDLESS:
            facts[f"{split}_clips"] = sum(counts)
    captions = {clips.bucket: clips.dataset.captions for clips in shapes}
    told = [f"{name}: {text}" if name else text for name, text in captions.items() if text]
    return facts | ({"captions": ", ".join(told)} if told else {})


def make_results(
    experiment: Experiment,
    evaluation: Evaluation,
    *,
    counts: Mapping[str, Any],
    timing: Mapping[str, Any],
    step_seconds: Mapping[int, float],
    goodput: Mapping[str, Any] | None = None,
    origin: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the content of results.json.

    Args:
        experiment: the run.
        evaluation: from `evaluate.Evaluator`.
        counts: steps, samples, videos evaluated, parameters.
        timing: seconds and rates.
        step_seconds: mean training-step time of each of the experiment's programs that has run.
        goodput: what a run's wall-clock time went into.
        origin: `command` and `commit`, as `devices.origin.run_origin` tells them.
    """
    return {
        **evaluation,
        "data": data_facts(experiment),
        "counts": dict(counts),
        "seeds": {
            "train": experiment.train.seed,
            "sample": experiment.sample.seed,
            "eval": experiment.evaluation.seed,
        },
        "versions": package_versions(),
        "device": device_facts(),
        "stages": stage_table(experiment, experiment.shapes[0], step_seconds),
        **({"buckets": bucket_tables(experiment, step_seconds)} if experiment.is_bucketed else {}),
        "schedule": schedule_curves(experiment),
        "timing": dict(timing),
        **({"goodput": dict(goodput)} if goodput else {}),
        **(origin or {}),
    }
