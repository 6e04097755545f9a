"""What a table's figures were measured on: facts that decide them, and one hash of these."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from experiments.systems import System
from tpdiff_jax.generation.from_checkpoint import OpenedRun
from tpdiff_jax.types import Params

_DECIDING_FIELDS = (
    *("num_steps", "steps_per_stage", "solver", "renoise"),
    *("guidance_scale", "guidance_per_stage", "grid_power", "time_grids", "video_weights"),
)
_SHOWN = 12  # characters of a hash on a page


def facts_of_videos(system: System, run: OpenedRun) -> dict[str, Any]:
    """Return what makes a system's videos what they are, without seed and prompts.

    Args:
        system: where it comes from.
        run: the opened checkpoint.
    """
    experiment = run.experiment
    sample = json.loads(experiment.config.sample.to_json_best_effort())
    return {
        "workdir": str(system.workdir),
        "overrides": dict(system.overrides),
        "checkpoint_step": run.step,
        "parameters_sha256": hash_of_params(run.params),
        "adapter": system.adapter,
        "negative_prompt": system.negative_prompt,
        "sample": {name: sample[name] for name in _DECIDING_FIELDS if name in sample},
        "strides": [list(stage.strides) for stage in experiment.pyramid.stages],
    }


def hash_of_params(params: Params) -> str:
    """Return the SHA-256 of all parameters, in the order of the tree."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def hash_of_facts(facts: Mapping[str, Any]) -> str:
    """Return the SHA-256 of facts as JSON holds them, whatever the order of their names.

    Args:
        facts: without what was measured.
    """
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), default=list)
    return hashlib.sha256(text.encode()).hexdigest()


def shown_hash(facts: Mapping[str, Any]) -> str:
    """Return the hash of facts as a page of a table shows it."""
    return f"facts `{hash_of_facts(facts)[:_SHOWN]}`"
