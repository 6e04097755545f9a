"""Planning: what training and sampling would take on a machine that is not here.

    devices -> trace and compile every program -> memory, FLOPs, traffic, messages -> least times

The programs are those that training and sampling run, compiled by the real compiler for the real
devices; nothing runs. Times are bounds from the chip's data sheet, not measurements.
"""

import dataclasses
import functools
import importlib.metadata
import math
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from tpdiff_jax.checks import first_line_of
from tpdiff_jax.devices.facts import package_versions
from tpdiff_jax.devices.host_memory import release_free_memory
from tpdiff_jax.devices.mesh import rounded_up
from tpdiff_jax.devices.origin import run_origin
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.experiment.experiment import Experiment, Program
from tpdiff_jax.files.json_files import write_json
from tpdiff_jax.generation.sampler import Sampler
from tpdiff_jax.planning.batch_search import LargestBatch, largest_batch
from tpdiff_jax.planning.program_cost import DoesNotFit, ProgramCost, program_cost
from tpdiff_jax.planning.roofline import roofline
from tpdiff_jax.planning.summary import format_plan, refusal, training_summary
from tpdiff_jax.planning.topology import Target, open_target
from tpdiff_jax.run_log.progress import Progress
from tpdiff_jax.train_state import TrainState
from tpdiff_jax.training.initial_state import abstract_train_state
from tpdiff_jax.training.remat_choice import build_with_remat
from tpdiff_jax.training.step_cost import (
    bytes_on_each_device,
    gradient_cost,
    update_beside,
    update_cost,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanFlags:
    """What planning takes from the command line beside the config.

    Attributes:
        topology: machine to plan for.
        frame_shape: (h, w, c) of a frame in place of the data set's, or (f, h, w, c) without one;
            None keeps the data set's.
        num_clips: clips to count chip-hours for.
        search_batch: whether to look for the largest batch that fits.
    """

    topology: str
    frame_shape: tuple[int, ...] | None = None
    num_clips: int = 10_000_000
    search_batch: bool = True


def plan_flags(values: Mapping[str, Any]) -> PlanFlags:
    """Return what planning takes from the flags of the command line.

    Raises:
        ValueError: for a frame shape that is no list of numbers.
    """
    shape = values["frame_shape"]
    if shape is not None and not all(text.isdigit() for text in shape):
        raise ValueError(f"--frame_shape={','.join(shape)} must be numbers, as in 48,80,16")
    return PlanFlags(
        topology=values["topology"],
        frame_shape=None if shape is None else tuple(map(int, shape)),
        num_clips=values["num_clips"],
        search_batch=values["largest_batch"],
    )


def plan(config: ConfigDict, workdir: pathlib.Path, flags: PlanFlags) -> pathlib.Path:
    """Plan a run; write `plan_TOPOLOGY.json` and `.html`.

    Args:
        config: every field of every group.
        workdir: folder for the files.
        flags: the machine and what to ask of it.

    Returns:
        The JSON file.

    Raises:
        ValueError: for a config or topology that cannot be built.
        DoesNotFit: after writing the files, when a program needs more memory than there is.
    """
    target = open_target(flags.topology)
    if target.devices[0].platform == "tpu" and target.name != "local":
        # They are written to JAX's compilation cache and never found there again.
        logging.info(
            "%s is not here: its programs cannot be kept, each plan compiles anew", target.name
        )
    planner = Planner(config, target, flags)
    workdir.mkdir(parents=True, exist_ok=True)  # compiling takes minutes: is there a place for it?
    content = planner.plan()
    path = workdir / f"plan_{flags.topology.replace(':', '_')}.json"
    write_json(path, content)
    from tpdiff_jax.report import write_plan_page  # a second, not needed before

    page = write_plan_page(path)
    print(format_plan(content))
    logging.info("wrote %s and %s", path, page.name)
    if content["refusal"]:
        raise DoesNotFit(content["refusal"], None)
    return path


class Planner:
    """Compiles the programs of one config for one machine and adds up what they take."""

    def __init__(self, config: ConfigDict, target: Target, flags: PlanFlags) -> None:
        """Build the experiment on the target's devices."""
        self._config, self._target, self._flags = config, target, flags
        self._experiment, self._remat = build_with_remat(
            config, self._build_whole, target.memory_bytes
        )
        self._config = self._experiment.config  # what was left open is chosen once

    def plan(self) -> dict[str, Any]:
        """Return the content of the JSON file."""
        experiment, target = self._experiment, self._target
        programs = experiment.programs
        total = len(programs) + 1
        with Progress(total, label="plan", unit="program", log_seconds=0.0) as progress:
            rows: list[dict[str, Any]] = []
            for program in reversed(programs):  # full rate first: it needs the most memory
                rows.insert(0, self._stage_row(program))
                progress.update(len(rows), stage=program.stage, seconds=rows[0]["compile_seconds"])
            sampler = self._sampler_row()
            progress.update(total, seconds=sampler["compile_seconds"])
            search = self._try_search(rows, progress) if self._flags.search_batch else None
        training = training_summary(
            rows,
            experiment.train.stage_probs,
            bucket_steps=experiment.bucket_steps,
            num_chips=target.num_chips,
            num_clips=self._flags.num_clips,
        )
        largest = {"batch_field": "train.batch_size", **search._asdict()} if search else None
        return {
            "topology": target.facts() | {"mesh": dict(experiment.mesh.shape)},
            "chip": dataclasses.asdict(target.chip) if target.chip else None,
            "state": state_bytes(abstract_train_state(experiment)),
            "stages": rows,
            "sampler": sampler,
            "training": training,
            "largest_batch": largest,
            "remat": self._remat._asdict() if self._remat else None,
            "refusal": refusal(target.name, [*rows, sampler], largest),
            **run_origin(),
            "versions": package_versions() | {"libtpu": _libtpu_version()},
            "config": experiment.config.to_dict(),
        }

    def _build(self, batch_size: int) -> Experiment:
        config = self._config.copy_and_resolve_references()
        config.train.batch_size = batch_size
        return self._build_whole(config)

    def _build_whole(self, config: ConfigDict) -> Experiment:
        return build_experiment(
            config, devices=self._target.devices, frame_shape=self._flags.frame_shape
        )

    def _stage_row(self, program: Program) -> dict[str, Any]:
        experiment, stage = program.experiment, program.clips.pyramid.stages[program.stage]
        peaks: list[float] = []

        def measure() -> ProgramCost:
            gradient = gradient_cost(program)
            peaks.append(gradient.memory.peak)
            return gradient.then(update_beside(program, self._update_cost))

        row = self._program_row(measure, program.train_flops)
        row["gradient_bytes"] = peaks[0] if peaks else row["needed_bytes"]
        tokens = experiment.network.num_tokens(stage.shape)
        return {
            "name": f"train {program.name}",
            "strides": list(stage.strides),
            "shape": list(stage.shape),
            "batch_size": program.batch_size,
            "batch_field": "train.batch_size",
            "tokens_per_clip": tokens,
            "tokens": tokens * program.batch_size,
            **row,
        }

    def _sampler_row(self) -> dict[str, Any]:
        experiment = self._experiment
        batch_size = rounded_up(experiment.sample.batch_size, experiment.mesh)
        sampler = Sampler(experiment)
        devices = self._target.devices
        row = self._program_row(
            lambda: program_cost(sampler.trace(batch_size), devices), sampler.flops() * batch_size
        )
        return {
            "name": "sampler",
            "batch_size": batch_size,
            "batch_field": "sample.batch_size",
            **row,
        }

    @functools.cached_property
    def _update_cost(self) -> ProgramCost:
        """What every stage takes after its gradient, whatever the batch."""
        return update_cost(self._experiment)

    def _program_row(
        self, measure: Callable[[], ProgramCost], model_flops: float
    ) -> dict[str, Any]:
        """Compile one program, or those of a step, and return the figures."""
        start, target, memory_bytes = time.perf_counter(), self._target, self._target.memory_bytes
        row: dict[str, Any] = {"model_flops": model_flops, "memory_bytes": memory_bytes}
        try:
            cost = measure()
        except DoesNotFit as error:
            row |= {"fits": False, "needed_bytes": error.needed, "compiler": str(error)}
            row |= {"memory": None, "roofline": None}
        else:
            peak, bound = cost.memory.peak, roofline(cost, model_flops, target)
            row |= {"fits": memory_bytes is None or peak <= memory_bytes, "needed_bytes": peak}
            row |= {"memory_share": peak / memory_bytes if memory_bytes else None}
            row |= {**dataclasses.asdict(cost), "roofline": bound.facts() if bound else None}
            row["collectives"] = [c._asdict() for c in cost.collectives or ()]
        release_free_memory()
        return row | {"compile_seconds": time.perf_counter() - start}

    def _try_search(self, rows: list[dict[str, Any]], progress: Progress) -> LargestBatch | None:
        """Look for the largest batch; one that fails must not cost the rows made before."""
        try:
            return self._search_batch(rows, progress)
        except (ValueError, jax.errors.JaxRuntimeError) as error:
            logging.warning("the largest batch that fits was not found: %s", first_line_of(error))
            return None

    def _search_batch(self, rows: list[dict[str, Any]], progress: Progress) -> LargestBatch | None:
        """Look for the largest batch of the full-rate stage, of the shape with the most tokens.

        Its row has one point already. The line is that of the gradient: an update that needs more
        hardly changes with the batch, and tells nothing of where it ends.
        """
        experiment, memory_bytes = self._experiment, self._target.memory_bytes
        if memory_bytes is None:
            return None
        largest = max(range(len(rows)), key=lambda i: rows[i]["tokens_per_clip"])
        row = rows[largest]
        batch_size = experiment.train.batch_size

        def peak_of(batch_size: int) -> float:
            progress.message(f"plan: compiling the full-rate stage with {batch_size} clips")
            tried = self._stage_row(self._build(batch_size).programs[largest])
            if not tried["fits"]:
                raise DoesNotFit("", tried["gradient_bytes"])
            return tried["gradient_bytes"]

        return largest_batch(
            peak_of,
            unit=experiment.batch_unit,
            memory_bytes=memory_bytes,
            known={batch_size: row["gradient_bytes"]} if row["gradient_bytes"] else {},
            fits=batch_size if row["fits"] else 0,
            refused=None if row["fits"] else batch_size,
        )


def state_bytes(state: TrainState) -> dict[str, float]:
    """Return parameters in all, and the bytes of the state's parts on each device."""
    params = (state.params, state.frozen)
    return {
        "num_parameters": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)),
        "parameter_bytes": bytes_on_each_device(params),
        "average_bytes": bytes_on_each_device(state.ema_params),
        "optimizer_bytes": bytes_on_each_device(state.opt_state),
    }


def _libtpu_version() -> str | None:
    try:
        return importlib.metadata.version("libtpu")
    except importlib.metadata.PackageNotFoundError:
        return None
