"""Measuring a network: its videos, the real data's ceiling and the floors, by the same code."""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from tpdiff_jax.devices.origin import run_origin
from tpdiff_jax.evals.measures import Evaluation, Measures
from tpdiff_jax.experiment.build import Experiment
from tpdiff_jax.files.folders import make_out_folder
from tpdiff_jax.files.json_files import read_json, write_json
from tpdiff_jax.generation.from_checkpoint import OpenedRun
from tpdiff_jax.generation.sample_files import Decode, open_decoder
from tpdiff_jax.generation.sampler import Sampler
from tpdiff_jax.measures.clip_measures import ClipMeasures
from tpdiff_jax.measures.digit_measures import DigitMeasures
from tpdiff_jax.measures.real_clips import open_real_clips
from tpdiff_jax.results import make_results
from tpdiff_jax.run_log.progress import Progress
from tpdiff_jax.types import Params

NO_EVALUATION: Evaluation = {"metrics": {}, "references": {}, "metric_info": {}}
"""The evaluation of videos that there is nothing to compare with."""


def choose_measures(experiment: Experiment, decode: Decode | None = None) -> Measures:
    """Return what measures an experiment's videos: exact physics, or distances to held-out clips.

    Args:
        experiment: its data set decides.
        decode: what `open_decoder` returns; latents cannot be measured without.

    Raises:
        ValueError: when the data set's clips are too short for a figure that is asked for, digits
            are to be measured by what clips are, or clips to compare with are of another kind.
    """
    dataset, spec, measure = experiment.dataset, experiment.evaluation, experiment.measure
    if (world := dataset.world) is not None:
        for name in ("fvd_weights", "clip_folder", "real_clips"):
            if unread := getattr(measure, name):
                raise ValueError(
                    f"measure.{name}={unread!r} must be '': digits are measured by their own "
                    "physics"
                )
        return DigitMeasures(dataset, world, spec.num_videos, spec.seed)
    other = measure.real_clips
    clips = open_real_clips(other, dataset) if other else dataset
    return ClipMeasures(measure, clips, spec.num_videos, decode)


class Evaluator:
    """Evaluates parameters of one experiment: generates videos and has them measured."""

    def __init__(
        self,
        experiment: Experiment,
        sampler: Sampler,
        decode: Decode | None = None,
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Prepare; nothing is generated or measured yet.

        Args:
            experiment: what the parameters belong to.
            sampler: generates the videos.
            decode: what `open_decoder` returns; latents cannot be measured without.
            on_progress: called with the number of finished videos; may raise, to end it.
        """
        self._on_progress = on_progress
        self._experiment = experiment
        self._sampler = sampler
        self._measures = choose_measures(experiment, decode)

    @property
    def is_possible(self) -> bool:
        """Whether there is anything to compare with, and it can be measured."""
        return self._measures.is_possible

    @property
    def notes(self) -> Sequence[str]:
        """What a reader of the figures has to know; why there are none, if so."""
        return self._measures.notes

    @property
    def num_videos(self) -> int:
        """Videos that an evaluation generates; none where it is not possible."""
        return self._measures.num_videos if self.is_possible else 0

    def __call__(self, params: Params) -> Evaluation:
        """Generate `num_videos` videos and measure them.

        Args:
            params: network parameters.

        Returns:
            Figures and references, with notes on them where there is something to know; those of
            `NO_EVALUATION` where evaluation is not possible.
        """
        notes = list(self.notes)
        if jax.process_index() == 0:
            for note in notes:
                logging.warning("evaluation: %s", note)
        more: Evaluation = {**NO_EVALUATION, "notes": notes} if notes else NO_EVALUATION
        if not self.is_possible:
            return more
        return {**more, **self._measures(self._generate(params, self._measures.conditions()))}

    def _generate(self, params: Params, cond: Mapping[str, np.ndarray]) -> np.ndarray:
        spec, is_quiet = self._experiment.evaluation, jax.process_index() != 0
        with Progress(
            self.num_videos, label="evaluate", unit="video", is_quiet=is_quiet
        ) as progress:

            def report(num_finished: int) -> None:
                progress.update(num_finished)
                self._on_progress(num_finished)

            return self._sampler(
                params,
                cond,
                seed=spec.seed,
                batch_size=spec.batch_size,
                on_progress=report,
            )


def evaluate_run(run: OpenedRun, out: pathlib.Path | None) -> pathlib.Path:
    """Evaluate a checkpoint; write and print its figures, which process 0 does.

    The file says under `setting` how its videos were made and measured. One of the same setting is
    replaced; any other stays, and the new one gets a number.

    Args:
        run: the opened checkpoint.
        out: folder; by default the run's.

    Returns:
        The file written: `evaluation_STEP.json`, or `evaluation_STEP_pyramid_NAME.json` where the
        run is sampled through another pyramid; `..._2.json` and so on beside other settings.

    Raises:
        ValueError: when nothing can be measured, or `out` is no folder.
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
        raise ValueError(f"{'; '.join(evaluator.notes)}; --mode=sample writes videos to look at")
    folder = out or run.workdir
    make_out_folder(folder)
    evaluation = evaluator(run.params)
    results = make_results(
        experiment,
        evaluation,
        counts={"steps": run.step, "eval_videos": evaluator.num_videos},
        timing={
            "sample_flops_per_video": sampler.flops(),
            "sample_seconds_per_video": sampler.seconds_per_video,
        },
        step_seconds={},
        origin=run_origin(),
    )
    results["setting"] = setting = _setting(run, evaluator.num_videos)
    suffix = run.pyramid.suffix if run.pyramid else ""
    path = _path_of(folder, f"evaluation_{run.step:08d}{suffix}", setting)
    if jax.process_index() != 0:
        return path
    if run.pyramid:
        results["pyramid"] = cost = run.pyramid.cost()
        seconds = sampler.seconds_per_video
        print(
            f"pyramid {cost['name']}: {cost['calls']} network calls, {cost['flops_ratio']:.3g} of "
            f"the FLOPs of the run's own {cost['own_calls']}"
            + (f", {seconds:.3g} s a video" if seconds else "")
        )
    write_json(path, results)
    print(format_table(evaluation))
    logging.info("wrote %s", path)
    return path


def _setting(run: OpenedRun, num_videos: int) -> dict[str, Any]:
    """What makes an evaluation of a checkpoint what it is, as JSON holds it."""
    experiment = run.experiment
    setting = {
        "num_videos": num_videos,
        "seed": experiment.evaluation.seed,
        "sampler": dataclasses.asdict(experiment.sampler),
        "measure": dataclasses.asdict(experiment.measure),
        "bucket": experiment.shapes[0].bucket,
        "adapter": run.adapter,
    }
    return json.loads(json.dumps(setting))


def _path_of(folder: pathlib.Path, name: str, setting: Mapping[str, Any]) -> pathlib.Path:
    """The first of NAME.json, NAME_2.json, ... that is of this setting or not there yet."""
    paths = (folder / f"{name}{f'_{i}' if i > 1 else ''}.json" for i in itertools.count(1))
    return next(path for path in paths if not path.exists() or _setting_in(path) == setting)


def _setting_in(path: pathlib.Path) -> Any:
    """The setting that a file says; None where it cannot be read or says none."""
    try:
        return read_json(path).get("setting")
    except ValueError:
        return None


def format_table(evaluation: Evaluation) -> str:
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
