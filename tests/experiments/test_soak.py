"""Killed anywhere, inside a save too, a run ends with the bits of an undisturbed one.

The soak is the test: it starts the training command as a user does and kills it.
"""

import json
import pathlib
import shutil
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import pytest

from experiments import soak
from experiments.soak_runs import KINDS, Kill, Life, live, memory_growth
from tests.tiny import flags_of_sizes, tiny_config
from tpdiff_jax.files.json_files import write_json
from tpdiff_jax.run_folder import run_config
from tpdiff_jax.run_folder.checkpoints import Checkpoints

SMALLER = (
    "--config.pyramid.frame_strides=(1,)",
    "--config.data.num_frames=4",
    "--config.sample.num_steps=1",
    "--config.train.checkpoint_every_steps=1",
)


@pytest.fixture
def quick_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """Let the processes of one test share what they compile; killed ones leave parts of files."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def run_soak(out: pathlib.Path, *flags: str) -> dict[str, Any]:
    code = soak.main([f"--out={out}", *flags_of_sizes(), *SMALLER, *flags])
    report = json.loads((out / "soak.json").read_text())
    assert code == (0 if report["is_equal"] else soak.EXIT_DIFFERENT)
    return report


def test_killed_inside_a_save_and_resumed_the_bits_are_those_of_an_undisturbed_run(
    tmp_path: pathlib.Path, quick_processes: None
) -> None:
    report = run_soak(
        tmp_path / "out",
        *("--kills=2", "--kinds=writing,hashing", "--mean_seconds=0.01"),
        "--config.train.num_steps=5",
    )
    assert report["is_equal"], report
    assert report["num_arrays"] > 20 and report["compared_lines"] == 5
    killed = [life for life in report["lives"] if life["kind"]]
    assert [life["code"] for life in killed] == [-9, -9]
    assert any(life["unfinished"] for life in killed), "no kill fell into a save"
    page = (tmp_path / "out" / "soak.md").read_text()
    assert "equal to the undisturbed run" in page and "5 logged steps, 0 differ" in page


@pytest.mark.slow
def test_more_than_twenty_sigkills_inside_and_outside_saves_change_no_bit(
    tmp_path: pathlib.Path, quick_processes: None
) -> None:
    report = run_soak(
        tmp_path / "out",
        *("--kills=21", "--kinds=any,writing,hashing", "--mean_seconds=0.4"),
        "--config.train.num_steps=60",
    )
    assert report["is_equal"], report
    killed = [life for life in report["lives"] if life["kind"]]
    assert len(killed) >= 20 and {life["code"] for life in killed} == {-9}
    assert sum(bool(life["unfinished"]) for life in killed) >= 5
    assert len({life["newest_step"] for life in killed}) >= 3, "kills fell on one place again"


# ---- the soak itself, on fabricated runs


def fabricate(workdir: pathlib.Path, *, weight: float = 1.0, loss: float = 0.5) -> pathlib.Path:
    """A finished run of two steps that logged both."""
    workdir.mkdir(parents=True)
    config = tiny_config(train__num_steps=2, train__log_every_steps=1)
    run_config.save_config(workdir, config)
    checkpoints = Checkpoints(workdir)
    checkpoints.save(2, {"w": jnp.full((2, 3), weight), "step": jnp.int32(2)}, {})
    checkpoints.close()
    write_json(workdir / "results.json", {"counts": {"steps": 2}})
    lines = [{"step": 1, "loss": 1.0, "train_seconds": weight}, {"step": 2, "loss": loss}]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return workdir


def test_equal_runs_compare_equal_whatever_the_clock_said(tmp_path: pathlib.Path) -> None:
    a, b = fabricate(tmp_path / "a"), fabricate(tmp_path / "b")
    lines = (b / "metrics.jsonl").read_text().replace('"train_seconds": 1.0', '"train_seconds": 9')
    (b / "metrics.jsonl").write_text(lines)
    report = soak.compare_runs(a, b)
    assert report["is_equal"] and report["num_arrays"] == 2 and report["num_bytes"] == 28
    assert report["compared_lines"] == 2


def test_one_bit_of_one_array_and_one_loss_are_seen(tmp_path: pathlib.Path) -> None:
    a = fabricate(tmp_path / "a")
    b = fabricate(tmp_path / "b", weight=1.0 + 2.0**-23)
    assert soak.compare_runs(a, b)["different_arrays"] == ["w"]
    c = fabricate(tmp_path / "c", loss=0.5000000001)
    report = soak.compare_runs(a, c)
    assert report["different_lines"] == [2] and not report["is_equal"]


def test_unfinished_and_unlike_runs_are_not_compared(tmp_path: pathlib.Path) -> None:
    a, b = fabricate(tmp_path / "a"), fabricate(tmp_path / "b")
    (b / "results.json").unlink()
    with pytest.raises(ValueError, match="no finished run"):
        soak.compare_runs(a, b)
    run_config.save_config(b, tiny_config(optim__learning_rate=0.5))
    with pytest.raises(ValueError, match=r"optim\.learning_rate"):
        soak.compare_runs(a, b)


def test_a_reference_that_logged_other_steps_is_compared_by_its_state(
    tmp_path: pathlib.Path,
) -> None:
    a, b = fabricate(tmp_path / "a"), fabricate(tmp_path / "b", loss=0.7)
    run_config.save_config(a, tiny_config(train__num_steps=2, train__log_every_steps=2))
    report = soak.compare_runs(a, b)
    assert report["is_equal"] and report["compared_lines"] is None


@pytest.mark.parametrize(
    "flags",
    [["--kinds=power"], ["--reference=nowhere"], ["--config.train.num_steps"]],
)
def test_bad_input_is_refused_before_anything_runs(tmp_path: pathlib.Path, flags: list) -> None:
    assert soak.main([f"--out={tmp_path / 'out'}", *flags]) == soak.EXIT_BAD_INPUT
    assert not (tmp_path / "out").exists()


def test_kills_come_in_turn_and_depend_on_the_seed_alone() -> None:
    options = SimpleNamespace(seed=3, mean_seconds=5.0)
    kills = [soak.plan_kill(options, KINDS, number) for number in range(8)]
    assert [kill.kind for kill in kills] == [*KINDS, *KINDS]
    assert kills == [soak.plan_kill(options, KINDS, number) for number in range(8)]
    assert len({kill.seconds for kill in kills}) == 8
    assert all(0 <= kill.seconds <= 10 for kill in kills)


def test_an_interrupted_soak_goes_on_where_it_was(tmp_path: pathlib.Path) -> None:
    life = Life(-9, 2.5, "any", ["3.saving"], 2, [(0.0, 10)])
    path = tmp_path / "lives.jsonl"
    assert soak.read_lives(path) == [] and soak.longest_growth([]) is None
    soak.append_life(path, life)
    (again,) = soak.read_lives(path)
    assert again._replace(memory=[(0.0, 10)]) == life


def test_a_process_is_killed_while_it_writes_a_checkpoint(tmp_path: pathlib.Path) -> None:
    script = "import pathlib, sys, time\np = pathlib.Path(sys.argv[1])\n"
    script += "(p / '3.saving.orbax-checkpoint-tmp').mkdir(parents=True)\ntime.sleep(0.5)\n"
    script += "(p / '3.saving.orbax-checkpoint-tmp').rename(p / '4')\n"
    script += "(p.parent / 'metrics.jsonl').write_text('{}')\n"
    script += "(p / '5.saving.orbax-checkpoint-tmp').mkdir()\ntime.sleep(60)\n"
    python = shutil.which("python3") or "python3"
    command = [python, "-c", script, str(tmp_path / "checkpoints")]
    life = live(command, tmp_path, Kill("writing", 0.0))
    assert (life.code, life.kind, life.newest_step) == (-9, "writing", 4)
    assert life.unfinished == ["5.saving.orbax-checkpoint-tmp"] and life.seconds < 50


def test_memory_growth_looks_at_the_second_half_only() -> None:
    sizes = [1, 5, 9, 7, 7, 7, 8, 8, 8]
    life = Life(0, 8.0, None, [], 0, [(float(i), size) for i, size in enumerate(sizes)])
    assert memory_growth(life) == {"seconds": 8.0, "early": 7, "late": 8, "peak": 8}
    assert memory_growth(life._replace(memory=[])) is None
