"""`pyramid.stage_fractions="auto"`: windows from the clips, once, before anything is compiled.

The numbers take the word's place in the config, so that config.json of the run has them, and a
run that goes on, samples or evaluates measures nothing. Every process measures the same clips, and
process 0's numbers are everyone's.
"""

import pathlib
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from tpdiff_jax.advice.choice import choose_windows
from tpdiff_jax.advice.clip_spectrum import ClipSpectrum
from tpdiff_jax.advice.search import Candidate, Problem, Search, StageCosts, law_spectrum
from tpdiff_jax.advice.settings_grid import Setting
from tpdiff_jax.data import ClipShape, Dataset
from tpdiff_jax.devices.processes import numbers_of_main
from tpdiff_jax.experiment.experiment import Experiment
from tpdiff_jax.experiment.measured_clips import clips_to_measure, measure_clips
from tpdiff_jax.method.pyramid import Pyramid
from tpdiff_jax.run_folder.run_config import FILE_NAME, load_config
from tpdiff_jax.run_log.progress import Progress

AUTO = "auto"
_STRIDES = ("strides", "frame_strides")


def is_auto(config: ConfigDict) -> bool:
    """Whether a config leaves its windows to the clips.

    Args:
        config: every field of every group.

    Raises:
        ValueError: for another word where numbers should stand.
    """
    given = config.get("pyramid", {}).get("stage_fractions", ())
    if given in (AUTO, (AUTO,)):
        return True
    entries = given if isinstance(given, tuple) else (given,)
    if any(isinstance(entry, str) for entry in entries):
        raise ValueError(
            f"pyramid.stage_fractions is {given!r}; allowed: (), one positive number for each "
            f"stage, or {AUTO}"
        )
    return False


def with_fractions(config: ConfigDict, fractions: Sequence[float]) -> ConfigDict:
    """A copy of a config with these stage fractions.

    Args:
        config: every field of every group; it stays as it is.
        fractions: one a stage, or none for equal shares.
    """
    chosen = config.copy_and_resolve_references()
    with chosen.ignore_type():
        chosen.pyramid.stage_fractions = tuple(fractions)
    return chosen


def draft_fractions(num_stages: int) -> tuple[float, ...]:
    """Shares that stand for windows not yet chosen: all jumps are near the data.

    Equal shares need not exist, where a path has too little noise left for a jump.

    Args:
        num_stages: K.
    """
    return (10.0 * num_stages, *(1.0,) * (num_stages - 1))


def with_saved_windows(config: ConfigDict, workdir: pathlib.Path) -> ConfigDict:
    """The numbers that a run has chosen before in the place of the word.

    Args:
        config: every field of every group.
        workdir: of the run, which may not have begun.

    Returns:
        The config itself where there is nothing to fill in: no word, no run, or a run of other
        strides.
    """
    if not is_auto(config) or not (workdir / FILE_NAME).exists():
        return config
    saved, now = load_config(workdir).get("pyramid", {}), config.pyramid
    if any(saved.get(name) != now.get(name) for name in _STRIDES):
        return config
    return with_fractions(config, saved["stage_fractions"])


def choose_fractions(
    draft: Experiment, datasets: Mapping[str, Dataset | ClipShape]
) -> tuple[float, ...]:
    """Measure clips and choose the windows of a run.

    Args:
        draft: the run with `draft_fractions` in the place of its windows.
        datasets: by the name of the bucket; the one with the most clips is measured.

    Returns:
        Stage fractions, coarsest first; () for a run of one stage, which has no choice.

    Raises:
        ValueError: where no clips are at hand, they cannot be measured, or strides are not over
            time alone.
    """
    pyramid = draft.pyramid
    if pyramid.num_stages == 1:
        return ()
    if any(stage.strides[1:] != (1, 1) for stage in pyramid.stages):
        raise ValueError(
            f"pyramid.stage_fractions is {AUTO!r}, which measures redundancy over time, with "
            "strides over height or width; allowed: one number for each stage"
        )
    at_hand = [one for one in datasets.values() if not isinstance(one, ClipShape)]
    if not at_hand:
        raise ValueError(
            f"pyramid.stage_fractions is {AUTO!r} and there are no clips to measure; allowed: one "
            "number for each stage"
        )
    best, count = _measure_and_choose(draft, max(at_hand, key=lambda one: one.num_clips("train")))
    fractions = _of_main(best.setting.stage_fractions)
    details = ", ".join(f"{detail:.2g}" for detail in best.visible_details)
    logging.info(
        "pyramid.stage_fractions: %s, from %d clips (error of an exact predictor %.3f; detail that "
        "jumps leave visible, nats per thousand numbers: %s)",
        *(fractions, count, best.error, details),
    )
    return fractions


def _measure_and_choose(draft: Experiment, dataset: Dataset) -> tuple[Candidate, int]:
    pyramid, config = draft.pyramid, draft.config.pyramid
    ladder = tuple(stage.strides[0] for stage in pyramid.stages)
    _, count = clips_to_measure(dataset)
    is_quiet = jax.process_index() > 0
    with Progress(count, label="measure", unit="clip", is_quiet=is_quiet) as progress:
        spectrum = measure_clips(dataset, draft.train.seed, progress.update)
    measured = next(clips.pyramid for clips in draft.shapes if clips.facts is dataset)
    problem = problem_of(draft, measured, law_spectrum(spectrum, ladder[0]))
    costs = {stride: 1.0 / stride for stride in (*ladder, 1)}  # the same for all: not looked at
    steps = tuple(draft.sampler.steps_per_stage)
    fixed = Setting(ladder, config.downsample, config.upsample, (), steps)
    return choose_windows(Search(problem, StageCosts(costs, costs)), fixed), count


def problem_of(experiment: Experiment, pyramid: Pyramid, spectrum: ClipSpectrum) -> Problem:
    """What a config keeps fixed where windows, or whole pyramids, are looked for.

    Args:
        experiment: of the config.
        pyramid: of the shape of the clips that were measured: larger clips may shift times more.
        spectrum: of as many frames as are looked at.
    """
    sampler = experiment.sampler
    return Problem(
        spectrum=spectrum,
        path=pyramid.path,
        solver=sampler.solver,
        num_calls=sum(sampler.steps_per_stage),
        grid_power=sampler.stage_powers,
        time_shift=pyramid.time_shift,
        overlap=experiment.config.pyramid.get("overlap", 1.0),
        line=pyramid.line,
    )


def _of_main(fractions: tuple[float, ...]) -> tuple[float, ...]:
    """What process 0 has chosen: rounding may differ between kinds of processors."""
    if jax.process_count() == 1:
        return fractions
    thousandths = np.array([round(1000 * share) for share in fractions], np.int32)
    return tuple(int(share) / 1000 for share in numbers_of_main(thousandths))
