"""What a run shows on its way and at its end: sample videos, evaluation, results, report."""

import pathlib
from collections.abc import Callable, Mapping

import jax
from absl import logging

from tpdiff_jax.data import Requests
from tpdiff_jax.devices.origin import run_origin
from tpdiff_jax.evals.measures import Evaluation
from tpdiff_jax.evaluate import Evaluator, format_table
from tpdiff_jax.experiment.build import Experiment
from tpdiff_jax.files.json_files import write_json
from tpdiff_jax.generation.output_folder import NUMBERED, remove_videos
from tpdiff_jax.generation.sample_files import GRID_SIZE, SampleWriter, open_decoder
from tpdiff_jax.generation.sampler import Sampler
from tpdiff_jax.results import make_results
from tpdiff_jax.run_log.goodput import GOODPUT_FILE, summarise
from tpdiff_jax.run_log.json_lines import read_metrics
from tpdiff_jax.run_log.run_log import RunLog
from tpdiff_jax.train_state import TrainState, averaged_params
from tpdiff_jax.types import Params


class _Dropped(Exception):
    """The run is to stop before all is shown."""


class Milestones:
    """Periodic and final samples and evaluations; every process computes, process 0 writes."""

    def __init__(
        self,
        experiment: Experiment,
        workdir: pathlib.Path,
        log: RunLog,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Prepare; the sampler compiles when it is first used.

        Args:
            experiment: the run.
            workdir: its folder.
            log: takes what is measured and shown, and counts the time of it at the end.
            should_stop: asked between two batches of videos; what is under way is then dropped.
        """
        self._experiment = experiment
        self._workdir = workdir
        self._log = log
        self._requests = experiment.dataset.requests(experiment.sample.num_videos)
        self._sampler = Sampler(experiment)
        self._decode = open_decoder(experiment.dataset, experiment.sample.video_weights)
        self._should_stop = should_stop
        self._evaluator = Evaluator(
            experiment, self._sampler, self._decode, on_progress=self._stop_where_asked
        )
        self._is_main = jax.process_index() == 0
        self._origin = run_origin() if self._is_main else {}  # now: the code may change meanwhile

    def show_requests(self, requests: Requests) -> None:
        """Let samples show these requests, not the data set's own."""
        self._requests = requests

    def is_due(self, done: int) -> bool:
        """Whether something is to be shown after `done` steps (the last step has `finish`)."""
        spec = self._experiment.train
        return done < spec.num_steps and (
            self._is_period(done, spec.sample_every_steps)
            or self._is_period(done, spec.eval_every_steps)
        )

    @staticmethod
    def _is_period(done: int, period: int) -> bool:
        return period > 0 and done % period == 0

    def show(self, done: int, params: Params) -> bool:
        """Write what is due after `done` steps; return whether all of it was shown.

        Args:
            done: completed steps.
            params: the network's, averaged.
        """
        spec = self._experiment.train
        try:
            if self._is_period(done, spec.sample_every_steps):
                self._write_samples(done, params, self._workdir / "samples" / f"step_{done:08d}")
            if self._is_period(done, spec.eval_every_steps):
                self._evaluate(done, params)
        except _Dropped:
            return False
        return True

    def _stop_where_asked(self, _: int) -> None:
        if self._should_stop():
            raise _Dropped

    def finish(self, state: TrainState, checkpoint_counts: Mapping[str, int]) -> bool:
        """Write the final samples, results.json and report.html; return whether all of it was.

        Args:
            state: after the last step.
            checkpoint_counts: what the checkpoints of this session have counted.
        """
        spec = self._experiment.train
        try:
            with self._log.spend("evaluation", ends_at=spec.num_steps):
                self._stop_where_asked(0)
                params = averaged_params(self._experiment.task, state)
                self._write_samples(spec.num_steps, params, self._workdir / "samples")
                evaluation = self._evaluate(spec.num_steps, params)
        except _Dropped:
            return False
        if not self._is_main:
            return True
        figures = self._log.figures()
        counts = {
            "steps": spec.num_steps,
            "updates": int(state.num_updates),
            "parameters": sum(leaf.size for leaf in jax.tree.leaves((state.params, state.frozen))),
            "trained_parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
            "eval_videos": self._evaluator.num_videos,
            "failed_metric_writes": figures.failed_metric_writes,
            **checkpoint_counts,
        }
        results = make_results(
            self._experiment,
            evaluation,
            counts=counts,
            timing={**figures.timing, "sample_flops_per_video": self._sampler.flops()},
            step_seconds=figures.step_seconds,
            goodput=summarise(read_metrics(self._workdir / GOODPUT_FILE)),
            origin=self._origin,
        )
        write_json(self._workdir / "results.json", results)
        from tpdiff_jax.report import write_report  # a second, not needed before

        write_report(self._workdir)
        if self._evaluator.is_possible:
            logging.info("results:\n%s", format_table(evaluation))
        logging.info("report: %s", self._workdir / "report.html")
        return True

    def _write_samples(self, done: int, params: Params, folder: pathlib.Path) -> None:
        spec, requests = self._experiment.sample, self._requests
        videos = self._sampler(
            params,
            requests.cond,
            seed=spec.seed,
            batch_size=spec.batch_size,
            on_progress=self._stop_where_asked,
        )
        if not self._is_main:
            return
        remove_videos(folder, NUMBERED)  # of a life before: by then perhaps latents, or more
        writer = SampleWriter(folder, self._experiment.dataset.fps, self._decode)
        frames = writer.write(videos, requests.captions)
        writer.finish()
        if frames is None:
            return
        shown = {"samples": frames}
        if spec.prompts:
            for name, video in zip(writer.names[:GRID_SIZE], frames, strict=False):
                shown[f"prompts/{name}"] = video[None]
        self._log.shown(done, shown)

    def _evaluate(self, done: int, params: Params) -> Evaluation:
        evaluation = self._evaluator(params)
        if not evaluation["metrics"]:
            return evaluation
        scalars = {f"eval/{name}": value for name, value in evaluation["metrics"].items()}
        self._log.measured(done, scalars)
        return evaluation
