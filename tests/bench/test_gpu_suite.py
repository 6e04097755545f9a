"""The suite for a GPU, on a CPU: parts apart, what is kept, what fails, what has no time."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bench import gpu_checks, gpu_parts, gpu_suite, timing
from bench.gpu_page import write_page
from bench.gpu_rows import OutOfTime, Watch, attempt, timed_rounds
from bench.gpu_sizes import H200, TOY
from experiments.grid.overrides import merge_overrides, read_config
from experiments.pages.paper_tables import SECONDS
from tests.tiny import REPO
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.models.layers import attention_kernels

SPREAD = {"median": 2.0, "low": 1.5, "high": 2.5}


def rows_of(part: Iterator[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows by name, as the suite keeps them; none of them failed."""
    rows = {row["name"]: row for row in part}
    assert not [row["trace"] for row in rows.values() if "error" in row]
    return rows


def test_attention_is_compared_with_exact_products_and_a_wrong_kernel_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = rows_of(gpu_checks.attention(TOY, Watch(1e6)))
    assert len(rows) == len(TOY.attention)
    for row in rows.values():
        assert set(row["errors"]) == {"output", "to queries", "to keys", "to values"}
        assert 1e-4 < min(row["errors"].values()) and row["is_within_aim"]

    def shifted(q: Any, k: Any, v: Any, key_mask: Any = None) -> Any:
        exact = attention_kernels.dot_product_attention(q, k, v, key_mask)
        return exact if q.dtype == jnp.float32 else exact + 0.01 * exact[:, ::-1] + 0.1 * v

    monkeypatch.setitem(gpu_checks.KERNELS, "xla", shifted)
    row = gpu_checks.attention_figures(*TOY.attention[0])
    assert not row["is_within_aim"] and row["errors"]["output"] > 0.05


def test_attention_without_its_hidden_keys_is_that_of_the_others() -> None:
    """By numpy: in float32 the compared result is softmax over the keys that are seen."""
    batch, tokens, heads, channels, _ = 2, 160, 1, 16, True
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((batch, tokens, heads, channels)) for _ in range(3))
    mask = rng.random((batch, tokens)) < 0.5
    found = gpu_checks.KERNELS["xla"](*map(jnp.asarray, (q, k, v)), jnp.asarray(mask))
    for i in range(batch):
        scores = q[i, :, 0] @ k[i, mask[i], 0].T / np.sqrt(channels)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        expected = weights / weights.sum(axis=1, keepdims=True) @ v[i, mask[i], 0]
        np.testing.assert_allclose(found[i, :, 0], expected, atol=1e-5)


def test_rounds_stop_where_the_next_one_would_be_too_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A clock that only the cases move: each round takes 3 s of 20, of which 18 may be used."""
    now = [0.0]
    watch = Watch(20.0, clock=lambda: now[0])

    def case(seconds: float) -> Any:
        return lambda: now.__setitem__(0, now[0] + seconds)

    cases = {"a": case(1.0), "b": case(2.0)}
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    found = list(timed_rounds(cases, watch, most=99))
    assert len(found) == 6 and now[0] == 18.0
    assert found[-1]["b"].tolist() == [2.0] * 6 and [len(f["a"]) for f in found[:2]] == [1, 2]
    with pytest.raises(OutOfTime, match="21 of 20 s"):
        now[0] = 21.0
        watch.check()
    late = Watch(0.0, clock=lambda: now[0])
    assert len(list(timed_rounds(cases, late, most=99))) == 1, "the first round always is"
    assert Watch(100.0, clock=lambda: 0.0).share(4).left == pytest.approx(22.5)


def test_a_row_that_fails_says_why_and_where() -> None:
    row = attempt("8x8", lambda: {"value": 1 // 0})
    assert row["error"] == "ZeroDivisionError: integer division or modulo by zero"
    assert row["name"] == "8x8" and "1 // 0" in row["trace"]


def test_another_kernel_is_tried_where_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def timed(name: str, *rest: Any) -> Iterator[dict[str, Any]]:
        if "auto" in rest:
            raise RuntimeError("no engine for these heads")
        yield {"name": name, "attention_kernel": "xla"}

    monkeypatch.setattr(gpu_parts, "_timed_steps", timed)
    monkeypatch.setattr(gpu_parts, "_timed_samplers", timed)
    for part, count in ((gpu_parts.steps, 1), (gpu_parts.sampling, 3), (gpu_parts.training, 3)):
        rows = list(part(H200, Watch(1e6)))
        failed = [row for row in rows if "error" in row]
        assert len(failed) == count and "no engine" in failed[0]["error"]
        assert len([row for row in rows if row.get("attention_kernel") == "xla"]) == count


@pytest.mark.parametrize("name", H200.systems)
def test_the_sizes_of_a_gpu_are_the_papers_and_build(name: str) -> None:
    system = H200.systems[name]
    fields = merge_overrides({}, gpu_parts.batch_fields(1))
    built = build_experiment(read_config(system.config, fields), frame_shape=system.frame_shape)
    assert sum(built.sampler.steps_per_stage) == 30 and built.pyramid.num_stages == 3
    assert built.pyramid.stages[-1].shape == system.frame_shape[:3]


def test_the_dit_of_a_gpu_fits_it() -> None:
    fields = merge_overrides({}, {**H200.dit, "model.dtype": "bfloat16"})
    built = build_experiment(read_config(gpu_parts.DIT, fields), frame_shape=H200.dit_shape)
    network = built.network
    tokens = network.num_tokens(H200.dit_shape[:3]) * built.train.batch_size
    config = network.config
    # Per block: 12 d^2 of products that every token sees, 6 d^2 of modulation.
    parameters = 18 * config.hidden_size**2 * config.depth
    state = 4 * 4 * parameters  # parameters, average, two moments, float32
    kept = 2 * 9 * config.hidden_size * config.depth * tokens  # results of products, bfloat16
    both_twins = 2 * state + 4 * parameters + kept
    assert 60 * 2**30 < both_twins < 0.8 * 139 * 2**30
    assert tokens == 4 * 16 * 24 * 40


def part_files(out: pathlib.Path) -> dict[str, dict[str, Any]]:
    return {p.stem: json.loads(p.read_text()) for p in (out / "parts").glob("*.json")}


def measured_in_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let parts run here, where they can be replaced; return the names of those that ran."""
    ran: list[str] = []

    def wait(command: list[str], environment: Any, seconds: float) -> int | None:
        arguments = command[3:]
        ran.append(arguments[0].removeprefix("--part="))
        try:
            return gpu_suite.main(arguments)
        except KeyboardInterrupt:  # stands for being ended
            return None
        except SystemExit as stop:
            return int(stop.code or 0)

    monkeypatch.setattr(gpu_suite, "_wait", wait)
    monkeypatch.setattr(gpu_suite, "open_compilation_cache", lambda _: None)
    return ran


def test_every_part_is_written_as_it_ends_and_the_next_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = measured_in_process(monkeypatch)
    seen_by_memory: list[Any] = []

    def broken(*_: Any) -> Iterator[dict[str, Any]]:
        yield {"name": "first", **figures_of_steps()}
        raise RuntimeError("CUDA_ERROR | illegal address\nmore")

    def ended(*_: Any) -> Iterator[dict[str, Any]]:
        yield {"name": "wan", **figures_of_sampling()}
        raise KeyboardInterrupt

    def absent(*_: Any) -> Iterator[dict[str, Any]]:
        raise gpu_parts.SkippedPart("No module named 'torch'")
        yield {}

    def late(_: Any, watch: Watch) -> Iterator[dict[str, Any]]:
        seen_by_memory.append(json.loads((tmp_path / "gpu_suite.json").read_text()))
        yield {"name": "stage 0", **figures_of_memory()}
        raise OutOfTime("9 of 9 s are gone")

    def died(*_: Any) -> Iterator[dict[str, Any]]:
        raise SystemExit(134)
        yield {}

    for name, part in (
        ("steps", broken), ("sampling", ended), ("pytorch", absent), ("memory", late),
        ("training", died),
    ):  # fmt: skip
        monkeypatch.setitem(gpu_parts.MEASURES, name, part)
    parts = "attention,steps,sampling,pytorch,memory,training"
    flags = [f"--out={tmp_path}", "--size=toy"]
    assert gpu_suite.main([*flags, f"--parts={parts}"]) == gpu_suite.EXIT_UNMEASURED
    assert ran == parts.split(",")
    files = part_files(tmp_path)
    states = {name: file["status"] for name, file in files.items()}
    assert states["attention"] == "done"
    assert states["steps"] == "failed: RuntimeError: CUDA_ERROR | illegal address"
    assert states["sampling"].startswith("out of time: ended after 200 s, rows so far are kept")
    assert states["pytorch"] == "skipped: SkippedPart: No module named 'torch'"
    assert states["memory"] == "out of time: 9 of 9 s are gone, rows so far are kept"
    assert states["training"] == "failed: the process ended with 134, rows so far are kept"
    assert [len(files[n]["rows"]) for n in ("steps", "sampling", "memory")] == [1, 1, 1]
    assert set(seen_by_memory[0]["parts"]) == {"attention", "steps", "sampling", "pytorch"}
    report = json.loads((tmp_path / "gpu_suite.json").read_text())
    assert report["parts"]["attention"]["rows"] and report["device"]["platform"] == "cpu"
    page = (tmp_path / "gpu_suite.md").read_text()
    assert "| training | failed: the process ended with 134" in page
    told = capsys.readouterr().err
    assert "gpu_suite: steps: part 2 of 6, at most 130 s, all of the rest at most" in told

    ran.clear()
    assert gpu_suite.main([*flags, "--parts=attention,pytorch"]) == 0
    assert ran == ["pytorch"], "what is done is kept"
    monkeypatch.setattr(gpu_suite, "run_origin", lambda: {"commit": "another"})
    assert gpu_suite.main([*flags, "--parts=attention"]) == 0
    assert ran == ["pytorch", "attention"], "other code is measured anew"


def test_a_part_without_time_is_not_begun(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    ran = measured_in_process(monkeypatch)
    flags = [f"--out={tmp_path}", "--size=toy", "--minutes=0.1"]
    assert gpu_suite.main([*flags, "--parts=attention"]) == gpu_suite.EXIT_UNMEASURED
    assert not ran
    assert part_files(tmp_path)["attention"]["status"] == "out of time: nothing was measured"


def test_a_process_that_takes_too_long_is_ended_with_what_it_started() -> None:
    code = "import subprocess, sys, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"
    assert gpu_suite._wait([sys.executable, "-c", code], {}, 0.5) is None
    assert gpu_suite._wait([sys.executable, "-c", "raise SystemExit(3)"], {}, 60.0) == 3


def test_each_part_has_its_variables_beside_those_that_are_set() -> None:
    given = {"XLA_FLAGS": "--xla_a=1", "HOME": "/h"}
    out = gpu_suite.part_environment("resume_deterministic", given)
    assert out["XLA_FLAGS"] == "--xla_a=1 --xla_gpu_deterministic_ops=true" and out["HOME"] == "/h"
    assert out["CUDA_VISIBLE_DEVICES"] == "0"
    alone = gpu_suite.part_environment("resume_deterministic", {"CUDA_VISIBLE_DEVICES": "3"})
    assert alone["XLA_FLAGS"] == "--xla_gpu_deterministic_ops=true"
    assert alone["CUDA_VISIBLE_DEVICES"] == "3"
    shared = gpu_suite.part_environment("pytorch", {})
    assert shared["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert "XLA_FLAGS" not in gpu_suite.part_environment("steps", {})


@pytest.mark.parametrize("given", ["false", "true"])
def test_a_switch_that_was_set_is_set_anew_and_not_added_to(given: str) -> None:
    # "false false" is not "false" to JAX, which would then take nearly all of the memory at once.
    out = gpu_suite.part_environment("pytorch", {"XLA_PYTHON_CLIENT_PREALLOCATE": given})
    assert out["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"XLA_CLIENT_MEM_FRACTION": "0.92"}),
        ({"XLA_CLIENT_MEM_FRACTION": ".5"}, {"XLA_CLIENT_MEM_FRACTION": ".5"}),
        ({"XLA_PYTHON_CLIENT_MEM_FRACTION": ".5"}, {"XLA_PYTHON_CLIENT_MEM_FRACTION": ".5"}),
    ],
)
def test_the_share_of_memory_has_one_name(given: dict[str, str], expected: dict[str, str]) -> None:
    out = gpu_suite.part_environment("steps", given)
    assert {name: value for name, value in out.items() if "MEM_FRACTION" in name} == expected


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--parts=speed"], "--parts is 'speed'"),
        (["--minutes=0"], "--minutes=0.0 must be above 0"),
        (["--minutes=nan"], "--minutes=nan must be above 0"),
    ],
)
def test_bad_input_is_one_line(
    flags: list[str], words: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu_suite.main([f"--out={tmp_path}", *flags]) == gpu_suite.EXIT_BAD_INPUT
    assert words in capsys.readouterr().err


def figures_of_steps() -> dict[str, Any]:
    full = {"twin": "vanilla", "stage": 0, "shape": [16, 8, 8], "seconds": SPREAD}
    coarse = {**full, "twin": "pyramid", "shape": [4, 8, 8], "peak_share": 0.25}
    stages = [{**full, "peak_share": 0.5}, coarse]
    return {"stages": stages, "ratio": SPREAD, "model_ratio": 0.58}


def figures_of_sampling() -> dict[str, Any]:
    twins = dict.fromkeys(("vanilla", "pyramid", "ratio"), SPREAD)
    return {**twins, "paper_ratio": 1.82, "flop_ratio": 2.1}


def figures_of_memory() -> dict[str, Any]:
    sizes = {"measured": 220.0 * 2**20, "planned": 200.0 * 2**20, "compiled": 200.0 * 2**20}
    return {**sizes, "departure": 0.1, "is_within_aim": True}


def test_the_page_puts_figures_beside_aims() -> None:
    rows = {
        "steps": {"name": "DiT", **figures_of_steps()},
        "sampling": {"name": "wan", **figures_of_sampling()},
        "memory": {"name": "stage 0", **figures_of_memory()},
        "resume": {
            "name": "resumed run", "steps_that_differ": [5, 6], "stopped_at": 4, "steps": 8,
            "is_within_aim": False,
        },
        "attention": {
            "name": "1x2x3x4", "kernel": "cudnn", "errors": {"output": 0.01, "to keys": 0.002},
            "errors_of_xla_in_bfloat16": {"output": 0.003, "to keys": 0.02}, "is_within_aim": True,
        },
        "pytorch": {
            "name": "eager",
            "times": {"train/tpdiff_jax": SPREAD, "train/PyTorch, eager": {**SPREAD, "median": 3}},
            "over_ours": {"train/tpdiff_jax": SPREAD, "train/PyTorch, eager": SPREAD},
        },
        "training": {"name": "flux", "error": "XlaRuntimeError: a|b"},
    }  # fmt: skip
    parts = {n: {"rows": {"r": row}, "status": "done"} for n, row in rows.items()}
    page = write_page({"parts": parts, "size": "h200", "command": "x", "commit": "c0ffee"})
    for line in (
        "| steps | DiT, vanilla, 16x8x8 | 2 [1.5, 2.5] s, 50.0% of the peak | 50% and more | yes |",
        "| steps | DiT, stage 0, 4x8x8 | 2 [1.5, 2.5] s, 25.0% of the peak | - | - |",
        "| steps | DiT, pyramid over vanilla | 2 [1.5, 2.5] | 0.5; 0.58 by FLOPs | no |",
        "| 2 [1.5, 2.5] times faster | 1.82 in the paper, 2.1 by FLOPs | yes |",
        "| memory | stage 0 | 220 MiB, +10.0% | planned 200, compiled 200 MiB; 10 % | yes |",
        "stopped at 4 of 8 steps | steps 5, 6 differ | every bit | no |",
        "| attention | 1x2x3x4, cudnn | error 0.01 | 0.02 of XLA in bfloat16 | yes |",
        "| train, PyTorch, eager | 2 [1.5, 2.5] times ours | 3000 ms, ours 2000 ms | yes |",
        "| training | flux | error: XlaRuntimeError: a/b | - | no |",
    ):
        assert line in page, line
    assert "commit c0ffee" in page


def test_the_page_and_the_paper_agree_on_what_is_aimed_at() -> None:
    ratios = {name: round(a / b, 2) for name, (a, b) in SECONDS.items()}
    assert ratios == {"miniflux": 1.71, "animatediff": 1.49, "wan": 1.82}


def test_losses_are_compared_bit_by_bit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    nudged = np.nextafter(np.float32(0.5), np.float32(1))

    def pretend(length: int, workdir: pathlib.Path) -> None:
        workdir.mkdir(exist_ok=True)
        last = nudged if workdir.name == "parts" and length == 3 and is_wrong else 0.5
        steps = range(1, length + 1)
        lines = [
            {"step": s, "step_loss": float(last if s == 3 else 0.5), "step_grad_norm": 1.0}
            for s in steps
        ]
        text = "\n".join(json.dumps(line) for line in [*lines, {"step": 3, "eval/x": 1.0}])
        (workdir / "metrics.jsonl").write_text(text)

    monkeypatch.setattr(gpu_checks, "build_experiment", lambda config: config.train.num_steps)
    monkeypatch.setattr(gpu_checks, "train", pretend)
    for is_wrong in (False, True):
        row = gpu_checks.resume_figures(TOY)
        assert row["steps_that_differ"] == ([3] if is_wrong else [])
        assert row["is_within_aim"] != is_wrong and row["stopped_at"] == 2


def test_steps_are_timed_at_toy_size() -> None:
    (row,) = rows_of(gpu_parts.steps(TOY, Watch(1e6))).values()
    assert {(s["twin"], s["stage"]) for s in row["stages"]} == {
        ("pyramid", 0), ("pyramid", 1), ("vanilla", 0),
    }  # fmt: skip
    assert {len(column) for column in row["seconds"].values()} == {TOY.rounds}
    assert row["compile_seconds"] > 0 and row["peak"] == row["measured_peak"]
    for stage in row["stages"]:
        share = stage["flops"] / stage["seconds"]["median"] / row["peak"]
        assert stage["peak_share"] == pytest.approx(share)


def test_a_machine_that_reads_no_clips_needs_little(tmp_path: pathlib.Path) -> None:
    """Without what reads clips, draws pages of clips or encodes text, all sizes still build."""
    missing = ("av", "array_record", "clu", "grain", "tensorflow_datasets", "torch", "diffusers")
    for name in (*missing, "transformers", "sklearn", "tensorboard", "wandb"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not here')")
    code = (
        "from bench.gpu_parts import *\n"
        "from bench import gpu_checks\n"
        "from bench.gpu_sizes import H200, TOY\n"
        "for n, s in H200.systems.items():\n"
        "    build_twins(s.config, merge_overrides({}, batch_fields(1)), s.frame_shape)\n"
        "build_twins(DIT, merge_overrides({}, H200.dit), H200.dit_shape)\n"
        "print(next(gpu_checks.attention(TOY, Watch(99)))['is_within_aim'])\n"
        "try:\n    next(pytorch(TOY, Watch(99)))\n"
        "except SkippedPart as error:\n    print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{REPO}"}
    command = [sys.executable, "-c", code]
    out = subprocess.run(
        command, cwd=REPO, env=environment, capture_output=True, text=True, check=False
    )
    assert out.stdout.splitlines() == ["True", "not here"], out.stderr[-2000:]


@pytest.mark.slow
def test_the_whole_suite_runs_on_a_cpu(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-m", "bench.gpu_suite", f"--out={tmp_path}", "--size=toy"]
    out = subprocess.run(
        [*command, "--minutes=30"], cwd=REPO, capture_output=True, text=True, check=False
    )
    states = {name: file["status"] for name, file in part_files(tmp_path).items()}
    assert set(states) == set(gpu_suite.PARTS), out.stderr[-3000:]
    late = {name for name, state in states.items() if state.startswith("out of time")}
    # Where there is no compiler of C++, torch.compile fails, and the part says so.
    done = {name: state for name, state in states.items() if name not in late}
    assert all(state.startswith("done") for state in done.values()), states
    assert {state for name, state in done.items() if name != "pytorch"} <= {"done"}, states
    assert (out.returncode == 0) == (not late)
    report = json.loads((tmp_path / "gpu_suite.json").read_text())
    assert set(report["parts"]) == set(gpu_suite.PARTS) and "# GPU suite" in out.stdout
