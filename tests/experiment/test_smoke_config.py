"""configs/smoke.py is configs/flow.py in small: every part of a run, few programs and steps."""

from typing import Any

import jax

from configs import flow, smoke
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.run_folder.run_config import flat_fields


def test_it_differs_from_the_default_run_in_sizes_and_lengths_alone() -> None:
    default, small = (dict(flat_fields(module.get_config())) for module in (flow, smoke))
    assert default.keys() == small.keys()
    changed: dict[str, Any] = {n: small[n] for n in small if small[n] != default[n]}
    sizes = ("data.num_frames", "model.hidden_size", "model.depth", "eval.num_videos")
    lengths = ("train.num_steps", "sample.num_steps", "optim.warmup_steps", "optim.ema_decay")
    periods = tuple(name for name in small if name.endswith("_every_steps"))
    assert changed.keys() <= {*sizes, *lengths, *periods}
    assert all(small[name] <= default[name] for name in (*sizes, *lengths))


def test_it_is_small_and_has_every_part_of_a_run() -> None:
    experiment = build_experiment(smoke.get_config())
    params = jax.eval_shape(experiment.network.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) < 300_000
    assert [stage.strides[0] for stage in experiment.pyramid.stages] == [4, 2, 1]
    train = experiment.train
    assert 0 < train.checkpoint_every_steps < train.num_steps <= 1000
    assert experiment.sample.num_videos > 0 and experiment.evaluation.num_videos > 0
    assert smoke.get_config().is_locked
