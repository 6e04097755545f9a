"""Advice: what the clips of a config say about its pyramid, before any training.

    clips -> covariances by spatial frequency -> every setting of a grid, judged -> one to copy

Rests on `advice`, which says what is measured and what counts as good; nothing is compiled or
trained. The settings of the config itself, and ordinary diffusion, are judged beside the others.
"""

import itertools
import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from tpdiff_jax.advice.advice_text import advice_lines, override_words, verdict
from tpdiff_jax.advice.choice import (
    FLOOR,
    TOLERANCE,
    Limits,
    choose_setting,
    error_limit,
    is_paying,
)
from tpdiff_jax.advice.clip_spectrum import ClipSpectrum
from tpdiff_jax.advice.detail_share import SHOWN_STRIDES, detail_share, detail_shares
from tpdiff_jax.advice.search import Candidate, Search, StageCosts, law_spectrum
from tpdiff_jax.advice.settings_grid import (
    USEFUL_SHARE,
    Setting,
    fitting_ladders,
    useful_strides,
)
from tpdiff_jax.devices.facts import package_versions
from tpdiff_jax.devices.origin import run_origin
from tpdiff_jax.encoders import FIRST_LATENT_APART
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.experiment.clip_flops import clip_flops
from tpdiff_jax.experiment.experiment import Experiment
from tpdiff_jax.experiment.measured_clips import clips_to_measure, measure_clips
from tpdiff_jax.experiment.shapes import ClipsOfShape
from tpdiff_jax.experiment.window_choice import problem_of
from tpdiff_jax.files.json_files import write_json
from tpdiff_jax.method.axis_matrices import kept_length
from tpdiff_jax.run_log.progress import Progress

ADVICE_FILE = "advise.json"
_TRIED_ANYWAY = (2, 4)  # where no stride is of use: so that the page shows what it would cost


class AdviceFlags(NamedTuple):
    """What advice takes from the command line beside the config.

    Attributes:
        target_cost: largest cost, as a share of ordinary diffusion's; None looks for the cheapest
            setting of no larger error.
        target_debt: largest debt of a jump, nats per new frame, in the place of `MAX_VISIBLE`.
    """

    target_cost: float | None = None
    target_debt: float | None = None


def advise(config: ConfigDict, workdir: pathlib.Path | None, flags: AdviceFlags) -> dict[str, Any]:
    """Measure a config's clips and recommend a pyramid; print it.

    Args:
        config: every field of every group.
        workdir: folder for `advise.json` and `advise.html`; None writes nothing.
        flags: what to look for.

    Returns:
        The content of the JSON file.

    Raises:
        ValueError: for a config that cannot be built, or clips that cannot be measured.
    """
    experiment = build_experiment(config)
    if workdir is not None:  # before a minute is spent
        workdir.mkdir(parents=True, exist_ok=True)
    content = Adviser(experiment, flags).advice()
    content["verdict"] = verdict(content)
    print("\n".join(advice_lines(content)))
    if workdir is not None:
        path = workdir / ADVICE_FILE
        write_json(path, content)
        from tpdiff_jax.report import write_advice_page  # a second, not needed before

        page = write_advice_page(path)
        logging.info("wrote %s and %s", path, page.name)
    return content


class Adviser:
    """Measures the clips of an experiment and judges settings on them."""

    def __init__(self, experiment: Experiment, flags: AdviceFlags) -> None:
        """Take the shape with the most clips, where there are several."""
        self._experiment, self._flags = experiment, flags
        self._clips = max(experiment.shapes, key=lambda clips: clips.dataset.num_clips("train"))

    def advice(self) -> dict[str, Any]:
        """Return the content of the JSON file."""
        experiment, flags = self._experiment, self._flags
        dataset = self._clips.dataset
        split, count = clips_to_measure(dataset)
        with Progress(count, label="measure", unit="clip") as progress:
            spectrum = measure_clips(dataset, experiment.train.seed, progress.update)
        useful = useful_strides(spectrum)
        ladders = self._ladders(useful or _TRIED_ANYWAY)
        seen = law_spectrum(spectrum, max(SHOWN_STRIDES))
        problem = problem_of(experiment, self._clips.pyramid, seen)
        search = Search(problem, self._costs())
        with Progress(len(ladders), label="judge", unit="ladder") as progress:
            candidates: list[Candidate] = []
            for number, ladder in enumerate(ladders, start=1):
                candidates += search.candidates([ladder], self._resamplings())
                progress.update(number)
        vanilla = search.vanilla()
        limits = Limits(max_cost=flags.target_cost)
        if flags.target_debt is not None:
            limits = Limits(math.inf, flags.target_debt, flags.target_cost)
        best = choose_setting(candidates, vanilla.error, limits) if useful else None
        return {
            "data": _data_facts(self._clips, split, spectrum),
            "detail_shares": detail_shares(spectrum),
            "bands": _bands(spectrum),
            "inputs": self._inputs(limits, vanilla.error),
            "useful_strides": list(useful),
            "ladders": [list(ladder) for ladder in ladders],
            "vanilla": _row(vanilla),
            "configured": self._configured(search),
            "not_modelled": self._not_modelled(),
            "recommended": best and self._recommended(search, best, spectrum),
            "pays": is_paying(best, vanilla.error),
            "candidates": [_row(one) for one in candidates],
            **run_origin(),
            "versions": package_versions(),
            "config": experiment.config.to_dict(),
        }

    def _ladders(self, strides: Sequence[int]) -> list[tuple[int, ...]]:
        """The ladders that fit the clips and the network."""
        network, (frames, height, width) = self._experiment.network, self._clips.pyramid.shape

        def is_possible(ladder: tuple[int, ...]) -> bool:
            try:
                for stride in ladder:
                    network.check_shape(
                        (kept_length(frames, stride), height, width), (stride, 1, 1)
                    )
            except ValueError:
                return False
            return True

        return fitting_ladders(frames, strides, is_possible)

    def _costs(self) -> StageCosts:
        """Shares of full rate by the network's FLOP model, of every stride that may be judged."""
        experiment, facts = self._experiment, self._clips.facts
        frames, height, width = self._clips.pyramid.shape
        strides = {1, *SHOWN_STRIDES, *(stage.strides[0] for stage in self._clips.pyramid.stages)}
        shapes = {stride: (kept_length(frames, stride), height, width) for stride in strides}
        calls = {stride: experiment.network.flops(shape) for stride, shape in shapes.items()}
        steps = {
            stride: clip_flops(
                experiment.network,
                experiment.task.adaptation,
                facts.cond_shapes,
                (*shape, facts.frame_shape[-1]),
            )
            for stride, shape in shapes.items()
        }
        return StageCosts(
            {stride: flops / calls[1] for stride, flops in calls.items()},
            {stride: flops / steps[1] for stride, flops in steps.items()},
            by_tokens=experiment.train.batch_per_stage == "tokens",
        )

    def _resamplings(self) -> tuple[tuple[str, str], ...]:
        """D and U; a first latent that is the code of one frame is not copied into others."""
        given = self._experiment.config.pyramid.downsample
        down = given if given != "dct" else "stride"
        if self._clips.dataset.encoders["video"]["name"] in FIRST_LATENT_APART:
            return (down, "nearest_next"), (down, "linear"), ("stride", "insert")
        return (down, "nearest"), (down, "linear"), ("dct", "dct"), ("stride", "insert")

    def _configured(self, search: Search) -> dict[str, Any] | None:
        """The config's own setting, where its strides are over time alone."""
        experiment, stages = self._experiment, self._clips.pyramid.stages
        if any(stage.strides[1:] != (1, 1) for stage in stages):
            return None
        ends = [1.0, *(stage.t_end for stage in stages)]
        setting = Setting(
            tuple(stage.strides[0] for stage in stages),
            experiment.config.pyramid.downsample,
            experiment.config.pyramid.upsample,
            tuple(round(start - end, 12) for start, end in itertools.pairwise(ends)),
            tuple(experiment.sampler.steps_per_stage),
        )
        probs = experiment.train.stage_probs
        try:
            return _row(search.judge(setting, experiment.sampler, stage_probs=probs))
        except ValueError:  # strides or grids that do not fit the frames which are looked at
            return None

    def _not_modelled(self) -> list[str]:
        """Fields of the config that the law takes as if they had their defaults."""
        noise = self._clips.pyramid.coarse_noise
        return [f"pyramid.coarse_noise={noise:g}"] if noise > 0.0 else []

    def _resets(self, search: Search, best: Candidate) -> dict[str, tuple[float, ...]]:
        """Fields with entries of the config's stages -> what stands in their place."""
        config = self._experiment.config
        given = {
            "train.stage_probs": config.train.stage_probs,
            "sample.guidance_per_stage": config.sample.guidance_per_stage,
            "sample.time_grids": config.sample.get("time_grids", ()),
        }
        resets: dict[str, tuple[float, ...]] = {field: () for field in given if given[field]}
        calls = best.setting.steps_per_stage
        if len(config.sample.get("grid_power", (1.0,))) not in (1, len(calls)):
            resets["sample.grid_power"] = search.sampler(calls).stage_powers[:1]
        return resets

    def _recommended(
        self, search: Search, best: Candidate, spectrum: ClipSpectrum
    ) -> dict[str, Any]:
        """What is recommended, with the noise of its jumps and as words to copy."""
        strides = best.setting.frame_strides
        stages = search.pyramid(best.setting).stages[1:]
        jumps = [
            {"from": coarse, "to": fine, "t_start": stage.t_start, "noise": stage.nu_start}
            for (coarse, fine), stage in zip(itertools.pairwise(strides), stages, strict=True)
        ]
        words = override_words(best.setting, spectrum.means, self._resets(search, best))
        return _row(best) | {"jumps": jumps, "overrides": words}

    def _inputs(self, limits: Limits, vanilla_error: float) -> dict[str, Any]:
        experiment = self._experiment
        return {
            "path": experiment.config.path.name,
            "solver": experiment.sampler.solver,
            "num_calls": sum(experiment.sampler.steps_per_stage),
            "resamplings": [list(names) for names in self._resamplings()],
            "tolerance": TOLERANCE,
            "floor": FLOOR,
            "error_limit": error_limit(vanilla_error),
            **{name: _finite(limit) for name, limit in limits._asdict().items()},
            "useful_share": USEFUL_SHARE,
        }


def _row(one: Candidate) -> dict[str, Any]:
    fields = {name: _as_list(value) for name, value in one.setting._asdict().items()}
    return {
        **fields,
        "error": one.error,
        "visible_details": list(one.visible_details),
        "debts": list(one.debts),
        "sampling_cost": one.sampling_cost,
        "training_cost": one.training_cost,
        "cost": one.cost,
    }


def _finite(limit: float | None) -> float | None:
    """A limit as JSON holds it; None for none."""
    return limit if limit is not None and math.isfinite(limit) else None


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _data_facts(clips: ClipsOfShape, split: str, spectrum: ClipSpectrum) -> dict[str, Any]:
    dataset = clips.dataset
    return {
        "bucket": clips.bucket,
        "split": split,
        "num_clips": spectrum.num_clips,
        "num_frames": dataset.num_frames,
        "frame_shape": list(dataset.frame_shape),
        "fps": dataset.fps,
        "is_pixels": dataset.is_pixels,
        "variance": spectrum.variance,
        "means": list(spectrum.means),
    }


def _bands(spectrum: ClipSpectrum) -> list[dict[str, Any]]:
    """Of each band: its frequency, its coefficients, and standard deviations of one of them.

    `detail` holds what a copied frame misses at each stride.
    """
    rows = []
    for frequency, count, cov in zip(
        spectrum.frequencies, spectrum.counts, spectrum.covs, strict=True
    ):
        variance = float(np.trace(cov)) / spectrum.num_frames
        shares = {stride: detail_share(cov, stride, "nearest") for stride in SHOWN_STRIDES}
        rows.append(
            {
                "frequency": float(frequency),
                "num_coefficients": int(count),
                "deviation": math.sqrt(max(variance, 0.0)),
                "detail": {
                    str(stride): None if share is None else math.sqrt(max(share * variance, 0.0))
                    for stride, share in shares.items()
                },
            }
        )
    return rows
