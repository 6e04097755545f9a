"""Measuring a network: its videos, the real data's ceiling and the floors, by the same code."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from tpdiff_jax.build import Experiment
from tpdiff_jax.clip_measures import ClipMeasures
from tpdiff_jax.data import stack_clips
from tpdiff_jax.evals import METRICS, evaluate_videos, reference_figures
from tpdiff_jax.from_checkpoint import Run
from tpdiff_jax.results import make_results, write_json
from tpdiff_jax.run_log.progress import Progress
from tpdiff_jax.sample import Sampler
from tpdiff_jax.sample_files import Decode, open_decoder
from tpdiff_jax.types import Params


class RealClips(NamedTuple):
    """Real test clips to compare with, and the figures of as many others."""

    videos: np.ndarray
    references: dict[str, dict[str, float]]


class Evaluator:
    """Evaluates parameters of one experiment; the references are computed once."""

    def __init__(
        self, experiment: Experiment, sampler: Sampler, decode: Decode | None = None
    ) -> None:
        """Prepare; without exact evaluators clips are compared with clips.

        Args:
            experiment: what the parameters belong to.
            sampler: generates the videos.
            decode: what `open_decoder` returns; latents cannot be measured without.
        """
        self._experiment = experiment
        self._sampler = sampler
        self._real: RealClips | None = None
        self._clips: ClipMeasures | None = None
        if experiment.dataset.world is None:
            num_videos = experiment.evaluation.num_videos
            self._clips = ClipMeasures(experiment.measure, experiment.dataset, num_videos, decode)

    @property
    def is_possible(self) -> bool:
        """Whether there is anything to compare with."""
        return self._clips is None or self._clips.is_possible

    @property
    def num_videos(self) -> int:
        """Videos that an evaluation generates."""
        spec = self._experiment.evaluation
        return spec.num_videos if self._clips is None else self._clips.num_clips

    def __call__(self, params: Params) -> dict[str, Any]:
        """Generate `num_videos` videos and measure them.

        Args:
            params: network parameters.

        Returns:
            `metrics`, `references` (`ceiling`, `frozen`, `shuffled`) and `metric_info`, and for
            prepared clips `measurement`; empty where evaluation is not possible.
        """
        if not self.is_possible:
            return {"metrics": {}, "references": {}, "metric_info": {}}
        if self._clips is not None:
            return self._clips(self._generate(params, self._clips.conditions()))
        dataset = self._experiment.dataset
        cond = dataset.requests(self.num_videos).cond
        videos = self._generate(params, cond)
        real, world = self.real_clips(), dataset.world
        return {
            "metrics": evaluate_videos(videos, cond["label"], real_videos=real.videos, world=world),
            "references": real.references,
            "metric_info": {metric.name: metric._asdict() for metric in METRICS},
        }

    def _generate(self, params: Params, cond: Mapping[str, np.ndarray]) -> np.ndarray:
        spec, is_quiet = self._experiment.evaluation, jax.process_index() != 0
        with Progress(
            self.num_videos, label="evaluate", unit="video", is_quiet=is_quiet
        ) as progress:
            return self._sampler(
                params,
                cond,
                seed=spec.seed,
                batch_size=spec.batch_size,
                on_progress=progress.update,
            )

    def real_clips(self) -> RealClips:
        """Return real test clips and the figures of other real, frozen and shuffled ones."""
        if self._real is None:
            spec, dataset = self._experiment.evaluation, self._experiment.dataset
            n = spec.num_videos
            clips = stack_clips(dataset, "test", spec.seed, 2 * n)
            references = reference_figures(
                clips["video"][:n], clips["video"][n:], clips["label"][n:], world=dataset.world
            )
            self._real = RealClips(clips["video"][:n], references)
        return self._real


def evaluate_run(run: Run, out: pathlib.Path | None) -> pathlib.Path:
    """Evaluate a checkpoint; write and print its figures.

    Args:
        run: the opened checkpoint.
        out: folder; by default the run's.

    Returns:
        The file written, `evaluation_STEP.json`.

    Raises:
        ValueError: when there are no clips to compare with.
    """
    experiment = run.experiment
    sampler = Sampler(experiment)
    decode = open_decoder(experiment.dataset, experiment.sample.video_weights)
    if decode is None:
        raise ValueError(
            "evaluation measures videos, and the clips are latents: --video_weights must be the "
            "folder of the autoencoder that encoded them"
        )
    evaluator = Evaluator(experiment, sampler, decode)
    if not evaluator.is_possible:
        raise ValueError(
            "evaluation needs two clips or more to compare with; --mode=sample writes videos to "
            "look at"
        )
    evaluation = evaluator(run.params)
    results = make_results(
        experiment,
        evaluation,
        counts={"steps": run.step, "eval_videos": evaluator.num_videos},
        timing={"sample_flops_per_video": sampler.flops()},
        step_seconds={},
    )
    folder = out or run.workdir
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"evaluation_{run.step:08d}.json"
    write_json(path, results)
    print(format_table(evaluation))
    logging.info("wrote %s", path)
    return path


def format_table(evaluation: dict[str, Any]) -> str:
    """Return the figures as text: the model's beside ceiling and floors."""
    columns = {"model": evaluation["metrics"], **evaluation["references"]}
    lines = [f"{'metric':32s}" + "".join(f"{name:>12s}" for name in columns) + "  better"]
    for metric in evaluation["metrics"]:
        cells = "".join(f"{_shown(column.get(metric)):>12s}" for column in columns.values())
        direction = evaluation["metric_info"].get(metric, {}).get("direction", "")
        lines.append(f"{metric:32s}{cells}  {direction}")
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{value:.4g}"
