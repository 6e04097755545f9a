"""The bench of low-rank steps: three kinds of step that train the same, at different cost."""

import argparse
import functools
import json

import jax
import numpy as np
import pytest

from bench import low_rank
from bench.low_rank import BESIDE, FULL, MERGED, build_kinds, loss_flops
from tests.tiny import flags_of_sizes
from tpdiff_jax.train_step import loss_and_grads
from tpdiff_jax.training.initial_state import make_state
from tpdiff_jax.training.step_programs import abstract_batch

OPTIONS = argparse.Namespace(config="configs/flow.py", rank=2, trained="blocks/.*")
ONE_STAGE = "--config.pyramid.frame_strides=(1,)"


def tiny_kinds():
    return build_kinds(OPTIONS, low_rank.parse_overrides([*flags_of_sizes(), ONE_STAGE]))


@pytest.mark.slow
def test_both_low_rank_steps_have_the_same_gradient_and_differ_in_cost():
    kinds, key = tiny_kinds(), jax.random.key(0)
    state = make_state(kinds[BESIDE], key)
    rng = np.random.default_rng(0)
    params, frozen = jax.tree.map(  # a fresh network's head is zero, and lets no gradient through
        lambda leaf: leaf + 0.1 * rng.standard_normal(leaf.shape).astype(leaf.dtype),
        (state.params, state.frozen),
    )
    batch = jax.tree.map(
        lambda a: rng.uniform(0, 1, a.shape).astype(a.dtype),
        abstract_batch(kinds[BESIDE].programs[0]),
    )
    (_, beside), (_, merged) = (
        jax.jit(functools.partial(loss_and_grads, kinds[kind].task, 0))(params, batch, key, frozen)
        for kind in (BESIDE, MERGED)
    )
    scale = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(merged))
    assert scale > 1e-3
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * scale), beside, merged
    )
    flops = {kind: loss_flops(experiment, 0) for kind, experiment in kinds.items()}
    assert flops[BESIDE] < 0.8 * flops[FULL] < 0.9 * flops[FULL] < flops[MERGED]


def test_the_page_takes_shares_within_a_round(monkeypatch, tmp_path, capsys):
    seconds = {
        f"{FULL} 0": np.array([2.0, 4.0, 1.0]),
        f"{BESIDE} 0": np.array([1.0, 2.0, 0.5]),
        f"{MERGED} 0": np.array([3.0, 6.0, 1.5]),
    }
    monkeypatch.setattr(low_rank, "step_case", lambda *_: None)
    monkeypatch.setattr(low_rank, "time_interleaved", lambda *_, **__: seconds)
    flags = [f"--out={tmp_path}", "--clock=cpu", "--rank=2", "--stages", "0", *flags_of_sizes()]
    assert low_rank.main([*flags, ONE_STAGE]) == 0
    rows = json.loads((tmp_path / "low_rank.json").read_text())["rows"]
    assert rows[BESIDE]["of_full"] == {"median": 0.5, "low": 0.5, "high": 0.5}
    assert rows[MERGED]["seconds"]["median"] == 3.0
    assert rows[BESIDE]["forward_passes"] < rows[FULL]["forward_passes"]
    page = (tmp_path / "low_rank.md").read_text()
    assert "| 3000 [2250, 4500] | 1.5 [1.5, 1.5] |" in page and page in capsys.readouterr().out


@pytest.mark.slow
def test_tiny_steps_are_timed_and_written(tmp_path):
    flags = [f"--out={tmp_path}", "--rounds=2", "--rank=2", *flags_of_sizes(), ONE_STAGE]
    assert low_rank.main(flags) == 0
    rows = json.loads((tmp_path / "low_rank.json").read_text())["rows"]
    assert list(rows) == [FULL, BESIDE, MERGED]
    assert min(row["seconds"]["low"] for row in rows.values()) > 0


def test_bad_input_is_one_line(tmp_path, capsys):
    flags = [f"--out={tmp_path}", "--trained=no such"]
    assert low_rank.main(flags) == low_rank.EXIT_BAD_INPUT
    assert "adaptation.trained='no such' matches the path of no matrix" in capsys.readouterr().err
