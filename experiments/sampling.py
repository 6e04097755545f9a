"""Evaluate one trained network under many samplers; nothing is trained again.

    python -m experiments.sampling --workdirs=runs/flow --out=runs/sampling --seeds=0,1,2

Give several runs that differ in their seed, as in --workdirs=runs/a,runs/b: the spread is then
over runs, otherwise over sampling seeds. Every variant starts from the same noises, so differences
to `base` are paired. Finished measurements in --out are kept.

`--pyramids=standard` samples a network of one stage through pyramids instead, without training:
four upsamplings, three windows each, beside plain sampling with as many network calls, and with as
few as cost the same. `--variants` takes a part of them:

    python -m experiments.sampling --workdirs=runs/vanilla --out=runs/through --pyramids=standard \
      --num_videos=64 --seeds=0

Other pyramids are given as for `--pyramid`, joined by `|`.

Variants such as `calls_19_8_3` move network calls from the full rate to the coarse stages, where
they cost less: in proportion to a power of the stages' strides.

Writes sampling.json, sampling.md, frontier.png, frontier.svg and points/, one file a measurement.
Exit codes: 0 done; 2 bad input.
"""

import argparse
import math
import pathlib
import re
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.report_files import facts
from experiments.command_line import command_parser, output_folder, split_seeds
from experiments.compare import METRICS as SHOWN
from experiments.compare import check_metrics
from experiments.grid.grids import DIGITS_MEAN
from experiments.measured_facts import hash_of_params
from experiments.pages.sampling_tables import draw_frontier, summarize_points, write_page
from tpdiff_jax.digits.figures import DIGIT_METRICS
from tpdiff_jax.evaluate import choose_measures
from tpdiff_jax.experiment.build import Experiment, build_experiment
from tpdiff_jax.files.durable import write_durably
from tpdiff_jax.files.json_files import read_json, write_json
from tpdiff_jax.generation.from_checkpoint import OpenedRun, open_run, through_pyramid
from tpdiff_jax.generation.sampler import Sampler
from tpdiff_jax.run_folder import run_config
from tpdiff_jax.run_log.progress import Progress

EXIT_BAD_INPUT = 2
STEPS = (10, 20, 60)
POWERS = (1.5, 2.0)
CALL_POWERS = (0.5, 1.0, 1.25, -0.5)
GUIDANCE_SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
DIGITS = "moving_digits"


STANDARD = "standard"
RESAMPLINGS: dict[str, dict[str, Any]] = {
    "nearest": {"upsample": "nearest"},
    "linear": {"upsample": "linear"},
    "dct": {"downsample": "dct", "upsample": "dct"},
    "insert": {"upsample": "insert", "data_mean": (DIGITS_MEAN,)},
}
WINDOWS = {
    "thirds": (),
    "late": (0.5, 0.25, 0.25),
    "early": (0.2, 0.2, 0.6),
}
"""Shares of noise time of strides 4, 2, 1: with `early` the full video begins noisiest."""


def make_pyramids(text: str) -> dict[str, Any]:
    """Return the pyramids that `--pyramids` names: name -> what `--pyramid` takes.

    Args:
        text: "standard", or texts as of `--pyramid`, joined by `|`.
    """
    if text != STANDARD:
        return {one.strip(): one for one in text.split("|") if one.strip()}
    return {
        f"{how}_{when}": {"strides": (4, 2, 1), "stage_fractions": shares, **fields}
        for how, fields in RESAMPLINGS.items()
        for when, shares in WINDOWS.items()
    }


def tilted_calls(strides: Sequence[int], power: float, calls: int) -> tuple[int, ...]:
    """Return network calls of each stage, in proportion to a power of its stride.

    Args:
        strides: of the stages, coarsest first; each at least 1.
        power: 0 gives an even split.
        calls: in all, at least one a stage.
    """
    weights = np.array(strides, dtype=float) ** power
    shares = calls * weights / weights.sum()
    counts = np.maximum(np.floor(shares), 1).astype(int)
    while counts.sum() < calls:  # what is left over goes where most is missing
        counts[np.argmax(shares - counts)] += 1
    while counts.sum() > calls:
        counts[np.argmax(counts)] -= 1
    return tuple(counts.tolist())


def make_variants(strides: Sequence[int], guidance_scale: float) -> dict[str, dict[str, Any]]:
    """Return the variants: name -> fields of the config group `sample`.

    Args:
        strides: of the network's stages, all axes together; renoising, scales and calls per stage
            need several.
        guidance_scale: the run's own scale, which `base` uses.
    """
    num_stages = len(strides)
    base: dict[str, Any] = {
        "num_steps": 30,
        "steps_per_stage": (),
        "solver": "euler",
        "renoise": True,
        "guidance_scale": guidance_scale,
        "guidance_per_stage": (),
        "grid_power": (1.0,),
        "time_grids": (),
    }
    changes: dict[str, dict[str, Any]] = {"base": {}, "second_order": {"solver": "second_order"}}
    for steps in (steps for steps in STEPS if steps >= num_stages):
        changes[f"steps_{steps}"] = {"num_steps": steps}
        changes[f"second_order_steps_{steps}"] = {"num_steps": steps, "solver": "second_order"}
    for power in POWERS:
        changes[f"grid_power_{power:g}"] = {"grid_power": (power,)}
    for scale in (scale for scale in GUIDANCE_SCALES if scale != guidance_scale):
        changes[f"guidance_{scale:g}"] = {"guidance_scale": scale}
    if num_stages > 1:
        ones = (1.0,) * (num_stages - 1)
        changes["no_renoise"] = {"renoise": False}
        changes["guidance_coarsest_only"] = {"guidance_per_stage": (guidance_scale, *ones)}
        changes["guidance_finest_only"] = {"guidance_per_stage": (*ones, guidance_scale)}
        for power in CALL_POWERS:
            calls = tilted_calls(strides, power, base["num_steps"])
            changes["_".join(map(str, ("calls", *calls)))] = {"steps_per_stage": calls}
    return {name: base | change for name, change in changes.items()}


class Bench:
    """One trained network, its variants' samplers and the real clips to compare with."""

    def __init__(self, workdir: pathlib.Path, num_videos: int | None, pyramids: str = "") -> None:
        """Open the newest checkpoint of a run; samplers compile when first used."""
        config = run_config.load_config(workdir)
        if num_videos is not None:
            config.eval.num_videos = num_videos
        self.run: OpenedRun = open_run(workdir, config=config)
        self.variants = make_variants(
            [math.prod(stage.strides) for stage in self.run.experiment.pyramid.stages],
            config.sample.guidance_scale,
        )
        if pyramids:
            self.variants = {"base": self.variants["base"]}
        self.experiments: dict[str, Experiment] = {}
        for name, fields in self.variants.items():
            config.sample.update(fields)
            self.experiments[name] = build_experiment(config)
        if pyramids:
            self._use_pyramids(make_pyramids(pyramids))
        self._samplers: dict[str, Sampler] = {}
        self._parameters_sha256 = hash_of_params(self.run.params)
        self._measures = choose_measures(self.run.experiment)

    def _use_pyramids(self, pyramids: Mapping[str, Any]) -> None:
        """Vary the pyramid, not the sampler; plain sampling of the same costs stands beside."""
        base = self.variants["base"]
        plain = self.run._replace(experiment=self.experiments["base"])
        calls = sum(plain.experiment.sampler.steps_per_stage)
        fewer = set()
        for name, asked in pyramids.items():
            through = through_pyramid(plain, asked)
            assert through.pyramid is not None
            self.variants[name] = {**base, "pyramid": through.pyramid.name}
            self.experiments[name] = through.experiment
            fewer.add(max(1, round(calls * through.pyramid.cost()["flops_ratio"])))
        for number in sorted(fewer - {calls}):
            asked = {"frame_strides": (1,), "steps_per_stage": (number,)}
            through = through_pyramid(plain, asked)
            self.variants[f"plain_{number}"] = {**base, "num_steps": number}
            self.experiments[f"plain_{number}"] = through.experiment

    def key(self, name: str, seed: int) -> dict[str, Any]:
        """Return what identifies a measurement."""
        return {
            "workdir": str(self.run.workdir),
            "checkpoint_step": self.run.step,
            "parameters_sha256": self._parameters_sha256,
            "num_videos": self.run.experiment.evaluation.num_videos,
            "variant": name,
            "sample": {field: _as_json(value) for field, value in self.variants[name].items()},
            "seed": seed,
        }

    def measure(self, name: str, seed: int) -> dict[str, Any]:
        """Generate, time and evaluate videos of one variant."""
        spec, cond = self.run.experiment.evaluation, self._measures.conditions()
        if name not in self._samplers:
            self._samplers[name] = Sampler(self.experiments[name])
            warm_up = {field: rows[: spec.batch_size] for field, rows in cond.items()}
            self._samplers[name](self.run.params, warm_up, seed=seed, batch_size=spec.batch_size)
        start = time.perf_counter()
        videos = self._samplers[name](self.run.params, cond, seed=seed, batch_size=spec.batch_size)
        seconds = time.perf_counter() - start
        num_generated = -(-spec.num_videos // spec.batch_size) * spec.batch_size
        evaluation = self._measures(videos)
        sampler = self.experiments[name].sampler
        return {
            **self.key(name, seed),
            "metrics": evaluation["metrics"],
            "references": evaluation["references"],
            "seconds_per_video": seconds / num_generated,
            "flops_per_video": self._samplers[name].flops(),
            "steps_per_stage": list(sampler.steps_per_stage),
            "guidance_per_stage": list(sampler.stage_scales),
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, then sum up; return the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    options = _parser().parse_args(arguments)
    try:
        shown = options.metrics.split(",")
        check_metrics(shown, [])
        seeds = split_seeds(options.seeds)
        workdirs = [pathlib.Path(name) for name in options.workdirs.split(",")]
        only = options.variants.split(",") if options.variants else []
        points = measure_all(
            workdirs, seeds, only, options.num_videos, options.out, options.pyramids
        )
    except ValueError as error:
        print(f"sampling: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    info = {metric.name: metric._asdict() for metric in DIGIT_METRICS}
    summary = summarize_points(points) | {"metric_info": info}
    summary |= facts("sampling", arguments, "experiments")
    write_json(options.out / "sampling.json", {**summary, "points": points})
    write_durably(options.out / "sampling.md", write_page(summary, shown))
    draw_frontier(options.out / "frontier", summary, shown)
    print(f"wrote {options.out / 'sampling.md'}, sampling.json, frontier.png, frontier.svg")
    return 0


def measure_all(
    workdirs: Sequence[pathlib.Path],
    seeds: Sequence[int],
    only: Sequence[str],
    num_videos: int | None,
    out: pathlib.Path,
    pyramids: str = "",
) -> list[dict[str, Any]]:
    """Return one measurement for each run, seed and variant; those on disk are read.

    Args:
        workdirs: trained runs.
        seeds: sampling seeds.
        only: names of variants, `base` is added; none asks for all.
        num_videos: videos of each measurement; None takes `eval.num_videos` of the run.
        out: output folder.
        pyramids: to sample through, see `make_pyramids`; "" varies the sampler.

    Raises:
        ValueError: for a folder without a checkpoint, a run on clips that are no digits, or an
            unknown variant.
    """
    for workdir in workdirs:
        check_digits(workdir)
    folder = out / "points"
    folder.mkdir(parents=True, exist_ok=True)
    points: list[dict[str, Any]] = []
    for number, workdir in enumerate(workdirs):
        bench = Bench(workdir, num_videos, pyramids)
        names = select_variants(list(bench.variants), only)
        todo = [(seed, name) for seed in seeds for name in names]
        with Progress(len(todo), label=f"sampling {workdir.name}", unit="variant") as progress:
            for done, (seed, name) in enumerate(todo, 1):
                words = re.sub(r"[^A-Za-z0-9.+-]+", "_", name)
                path = folder / f"{number}_{workdir.name}_{words}_seed_{seed}.json"
                point = read_point(path, bench.key(name, seed))
                if point is None:
                    point = bench.measure(name, seed)
                    write_json(path, point)
                points.append(point)
                progress.update(done, variant=name, seed=str(seed))
    return points


def check_digits(workdir: pathlib.Path) -> None:
    """Raise ValueError for a run on other clips, which have none of the figures that are shown."""
    name = run_config.load_config(workdir).data.name
    if name != DIGITS:
        raise ValueError(
            f"--workdirs: data.name of {workdir} is {name!r}; allowed: {DIGITS}, whose figures are "
            "compared (--mode=evaluate measures other clips)"
        )


def select_variants(known: Sequence[str], only: Sequence[str]) -> list[str]:
    """Return the variants asked for, `base` among them; all for none.

    Raises:
        ValueError: for an unknown name.
    """
    if unknown := sorted(set(only) - set(known)):
        raise ValueError(f"--variants: no {', '.join(unknown)}; there are {', '.join(known)}")
    return [name for name in known if not only or name in only or name == "base"]


def read_point(path: pathlib.Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a measurement from disk if it is the one of `key`."""
    if not path.is_file():
        return None
    point = read_json(path)
    return point if all(point.get(name) == value for name, value in key.items()) else None


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("experiments.sampling", __doc__)
    parser.add_argument("--workdirs", required=True, help="trained runs, joined by commas")
    parser.add_argument("--out", required=True, type=output_folder, help="output folder")
    parser.add_argument("--seeds", default="0,1,2", help="sampling seeds")
    parser.add_argument("--variants", default="", help="only these, and base")
    parser.add_argument(
        "--pyramids", default="", help="standard, or pyramids as of --pyramid joined by |"
    )
    parser.add_argument("--num_videos", type=int, help="videos of each; default eval.num_videos")
    parser.add_argument("--metrics", default=",".join(SHOWN), help="figures to show")
    return parser


if __name__ == "__main__":
    sys.exit(main())
