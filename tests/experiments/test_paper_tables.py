"""The paper's tables on small runs: the same videos however they are made, figures by hand."""

import hashlib
import json
import pathlib
import shutil
from typing import Any

import jax
import pytest

from experiments import table1, table2, table3
from experiments.measured_facts import hash_of_params
from experiments.pages.paper_tables import ALIGNMENT, SCORES, beside_published, latency_rows
from experiments.systems import read_systems
from tests.test_text_run import OVERRIDES, PROMPTS, folder, make_config
from tests.tiny import tiny_config
from tpdiff_jax.clips.record_manifest import read_clip_manifest
from tpdiff_jax.evals.vbench import QUALITY, SEMANTIC
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.export import export_run
from tpdiff_jax.files.json_files import write_json
from tpdiff_jax.generation.from_checkpoint import open_run
from tpdiff_jax.train import train

__all__ = ["folder"]  # the fixture


@pytest.fixture(scope="module")
def systems(folder: pathlib.Path) -> pathlib.Path:
    """A file that names a run of two steps, and its weights as if they were published."""
    run = folder / "run"
    train(build_experiment(make_config(folder)), run)
    export_run(open_run(run), None, "float32", folder / "weights")
    fields = {**OVERRIDES, "data.folder": folder / "clips", "model.weights": folder / "weights"}
    text = {"text_weights": str(folder / "text_encoders")}
    weights = {
        "workdir": str(folder / "no_run"),
        "config": "configs/captioned_digits.py",
        "overrides": {name: str(value) for name, value in fields.items()},
    }
    entries = {"miniflux_tpdiff": {"workdir": str(run), **text}, "weights": {**weights, **text}}
    write_json(folder / "systems.json", entries)
    (folder / "prompts.txt").write_text("\n".join([*PROMPTS, PROMPTS[0]]))  # one stands twice
    return folder / "systems.json"


def table2_of(systems: pathlib.Path, out: pathlib.Path, *flags: str) -> int:
    prompts = systems.with_name("prompts.txt")
    return table2.main(
        [f"--systems={systems}", f"--prompts={prompts}", f"--out={out}", "--videos_per_prompt=2",
         *flags]
    )  # fmt: skip


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_videos_are_the_same_whole_in_parts_and_anew(
    systems: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, parts, only = tmp_path / "whole", tmp_path / "parts", "--only=miniflux_tpdiff"
    assert table2_of(systems, whole, only) == 0
    videos = contents(whole / "miniflux_tpdiff")
    assert set(videos) == {f"{prompt}-{i}.mp4" for prompt in PROMPTS for i in (0, 1)}
    assert len(set(videos.values())) == 4, "each has a noise of its own"
    assert "--mode=custom_input" in capsys.readouterr().out

    assert table2_of(systems, parts, only, "--part=2/2") == 0
    half = contents(parts / "miniflux_tpdiff")
    assert set(half) == {f"{PROMPTS[1]}-{i}.mp4" for i in (0, 1)}, "the second batch of two"
    assert "2 videos are still to be made" in capsys.readouterr().out
    assert table2_of(systems, parts, only, "--part=1/2") == 0
    assert contents(parts / "miniflux_tpdiff") == videos

    lost = whole / "miniflux_tpdiff" / f"{PROMPTS[1]}-1.mp4"
    lost.unlink()
    kept = (whole / "miniflux_tpdiff" / f"{PROMPTS[0]}-0.mp4").stat().st_mtime_ns
    assert table2_of(systems, whole, only) == 0
    assert contents(whole / "miniflux_tpdiff") == videos
    assert (whole / "miniflux_tpdiff" / f"{PROMPTS[0]}-0.mp4").stat().st_mtime_ns == kept


def test_published_weights_make_the_videos_of_the_run_that_they_came_from(
    systems: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    assert table2_of(systems, tmp_path) == 0
    assert contents(tmp_path / "weights") == contents(tmp_path / "miniflux_tpdiff")
    report = json.loads((tmp_path / "table2.json").read_text())
    steps = {n: row["setting"]["checkpoint_step"] for n, row in report["systems"].items()}
    assert steps == {"miniflux_tpdiff": 2, "weights": 0}


def test_scores_stand_beside_the_papers(
    systems: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    only = "--only=miniflux_tpdiff"
    scores = tmp_path / "miniflux_tpdiff_scores"
    scores.mkdir(parents=True)
    raw = {name: 0.5 * (d.low + d.high) for name, d in {**QUALITY, **SEMANTIC}.items()}
    (scores / "a_eval_results.json").write_text(json.dumps({k: [v, []] for k, v in raw.items()}))
    assert table2_of(systems, tmp_path, only) == 0
    page = capsys.readouterr().out
    # A score midway between its bounds counts a half in every total.
    assert "| miniflux_tpdiff | measured | 50 | 85.17 | 50 | 50 | 50 | 50 | 18.2 |" in page
    assert "| miniflux_tpdiff | paper | 78.52 | - | - | - | 42.23 | - | - |" in page
    assert "custom_input" not in page, "nothing is left to score"


def test_the_table_alone_opens_no_encoder(
    systems: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = "--only=miniflux_tpdiff"
    assert table2_of(systems, tmp_path, only) == 0
    monkeypatch.setattr(table2, "request_videos", lambda *_, **__: pytest.fail("it is opened"))
    assert table2_of(systems, tmp_path, only) == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--seed=1"], "describes other videos (seed: 0, now 1): name another --out"),
        (["--part=3/2"], "--part=3/2 must be like 2/4"),
        (["--part=two"], "--part=two must be like 2/4"),
        (["--part=\N{SUPERSCRIPT TWO}/4"], "must be like 2/4"),
        (["--only=modelscope"], "--only is 'modelscope'"),
        (["--videos_per_prompt=0"], "--videos_per_prompt=0 must be 1 or more"),
        (["--prompts=vbench"], "needs --info="),
        (["--dimensions=color"], "color needs VBench's own prompts"),
        (["--dimensions=colour"], "no colour; there are"),
    ],
)
def test_what_does_not_fit_is_one_line(
    systems: pathlib.Path,
    tmp_path: pathlib.Path,
    flags: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_json(tmp_path / "miniflux_tpdiff.json", {"seed": 0})
    if flags == ["--seed=1"]:
        run = read_systems(systems, ["miniflux_tpdiff"])[0]
        work = table2.read_work(
            table2._parser().parse_args(
                [f"--systems={systems}", f"--prompts={systems.with_name('prompts.txt')}",
                 f"--out={tmp_path}", "--videos_per_prompt=2"]
            )
        )  # fmt: skip
        facts = table2.facts_of(run, run.open(table2.GenerateFlags(seed=0)), work)
        write_json(tmp_path / "miniflux_tpdiff.json", facts)
    assert table2_of(systems, tmp_path, *flags) == 2
    told = capsys.readouterr().err.splitlines()  # among the compiler's own lines, where it is slow
    (line,) = (line for line in told if line.startswith("table2: error: "))
    assert words in line
    assert not (tmp_path / "miniflux_tpdiff").exists()


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"a": {}}, "workdir"),
        ({"a": {"workdir": "x", "weight": "y"}}, "weight"),
        ({"a": {"workdir": 3}}, "text"),
        ({"../a": {"workdir": "x"}}, "must be letters, digits, - and _"),
        ({"-": {"workdir": "x"}}, "none of these two first"),
        ({}, "names no system"),
        ({"a": {"workdir": "x", "overrides": "y"}}, "overrides"),
    ],
)
def test_a_file_of_systems_is_read_strictly(
    entries: Any, words: str, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "systems.json"
    write_json(path, entries)
    with pytest.raises(ValueError, match=words) as error:
        read_systems(path)
    assert str(path) in str(error.value)


def test_a_run_of_labels_is_refused_and_nothing_written(
    systems: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    train(build_experiment(tiny_config(train__num_steps=1)), run)
    path = tmp_path / "systems.json"
    write_json(path, {"digits": {"workdir": str(run)}})
    prompts = systems.with_name("prompts.txt")
    assert table2.main([f"--systems={path}", f"--prompts={prompts}", f"--out={out}"]) == 2
    assert "digits: it was trained on labels, and a prompt is text" in capsys.readouterr().err
    assert not out.exists()


def test_videos_of_other_parameters_are_not_taken_for_these(systems: pathlib.Path) -> None:
    (run, _) = (s.open(table2.GenerateFlags()) for s in read_systems(systems))
    changed = jax.tree.map(lambda leaf: leaf + (leaf == leaf.max()), run.params)
    assert hash_of_params(run.params) != hash_of_params(changed)


def test_each_table_shows_the_hash_of_the_facts_that_its_figures_were_measured_on(
    systems: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the library's own JSON; a network trained anew to the same step is measured anew."""
    flags = table3.GenerateFlags(num_videos=2, seed=0)
    system = read_systems(systems, ["miniflux_tpdiff"])[0]
    row = table3.evaluate_system(system, flags, tmp_path)
    work = table2.read_work(
        table2._parser().parse_args(
            [f"--systems={systems}", f"--prompts={systems.with_name('prompts.txt')}",
             f"--out={tmp_path}/videos"]
        )
    )  # fmt: skip
    run = system.open(flags)
    videos = table2.facts_of(system, run, work)
    assert videos["parameters_sha256"] == row["setting"]["parameters_sha256"]
    timed = {"config": "c", "frame_shape": [1, 2, 2, 4], "videos": 1, "rounds": 3}
    timed |= {"device": {"platform": "cpu", "kind": "cpu", "num_devices": 1}}
    spread = dict.fromkeys(("median", "low", "high"), 1.0)
    times = {"steps": [1], "flop_ratio": 1.0, "system": "wan", "setting": timed}
    times |= dict.fromkeys(("vanilla", "pyramid", "ratio"), spread)
    command = {"command": "x", "seed": 0, "prompts": 1}
    scored = {"setting": videos, "missing_videos": 1, "scores": {}}
    pages = [
        (timed, table1.write_page({"rows": [times], **command})),
        (videos, table2.write_page({"systems": {"a": scored}, **command})),
        (row["setting"], table3.write_page(
            {"systems": {"a": row}, "flags": flags._asdict(), **command}
        )),
    ]  # fmt: skip
    for facts, page in pages:
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        assert f"facts `{hashlib.sha256(text.encode()).hexdigest()[:12]}`" in page
    text = json.dumps(row["setting"], sort_keys=True, separators=(",", ":"))
    assert row["facts_sha256"] == hashlib.sha256(text.encode()).hexdigest()

    changed = run._replace(params=jax.tree.map(lambda leaf: leaf + 1, run.params))
    monkeypatch.setattr(type(system), "open", lambda *_, **__: changed)
    monkeypatch.setattr(table3, "evaluate_run", lambda *_: tmp_path / "anew.json")
    write_json(tmp_path / "anew.json", {"metrics": {"statistics": 7.0}})
    anew = table3.evaluate_system(system, flags, tmp_path)
    assert anew["metrics"] == {"statistics": 7.0} and anew["facts_sha256"] != row["facts_sha256"]


def test_what_is_measured_with_is_a_fact(tmp_path: pathlib.Path) -> None:
    weights = tmp_path / "i3d.safetensors"
    weights.write_bytes(b"abc")
    flags = table3.GenerateFlags(fvd_weights=str(weights))
    assert table3.hashes_of_measures(flags) == {
        "fvd_weights": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    }, "the standard's own example of SHA-256"


def test_a_system_that_cannot_be_opened_is_named(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "systems.json"
    write_json(path, {"wan": {"workdir": str(tmp_path / "nowhere")}})
    flags = [f"--systems={path}", f"--out={tmp_path / 'out'}"]
    assert table3.main(flags) == 2
    assert "table3: error: wan: " in capsys.readouterr().err


def test_alignment_is_measured_once_a_setting(
    systems: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [f"--systems={systems}", f"--out={tmp_path}", "--only=miniflux_tpdiff"]
    assert table3.main([*flags, "--num_videos=2"]) == 0
    measured = json.loads((tmp_path / "miniflux_tpdiff/evaluation_00000002.json").read_text())
    value = measured["metrics"]["statistics"]
    page = capsys.readouterr().out
    assert f"| miniflux_tpdiff | measured | {value:.4g} |" in page
    assert "| miniflux_tpdiff: real clips | measured |" in page and "alignment nearest" in page
    shutil.rmtree(tmp_path / "miniflux_tpdiff")
    assert table3.main([*flags, "--num_videos=2"]) == 0, "kept"
    assert not (tmp_path / "miniflux_tpdiff").exists()
    assert table3.main([*flags, "--num_videos=2", "--seed=1"]) == 0
    assert (tmp_path / "miniflux_tpdiff").exists(), "another setting is measured"


def test_published_weights_are_measured_against_named_clips(
    systems: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    clips = systems.with_name("clips")
    flags = [f"--systems={systems}", f"--out={tmp_path}", "--only=weights", "--num_videos=2"]
    assert table3.main([*flags, f"--real_clips={clips}"]) == 0
    row = json.loads((tmp_path / "table3.json").read_text())["systems"]["weights"]
    manifest = read_clip_manifest(clips).fingerprint
    assert row["measurement"]["data_manifest_sha256"] == manifest
    assert row["setting"]["checkpoint_step"] == 0 and row["metrics"]["statistics"] > 0


def test_a_measured_line_and_the_papers_line() -> None:
    text = beside_published(["fvd", "clipsim"], {"miniflux_unaligned": {"fvd": 1.5}}, ALIGNMENT)
    assert text.splitlines()[2:] == [
        "| miniflux_unaligned | measured | 1.5 | - |",
        "| miniflux_unaligned | paper | 602.1 | 29.34 |",
    ]
    assert "paper" not in beside_published(["total"], {"mine": {"total": 1.0}}, SCORES)


def test_the_papers_ratios_stand_beside_measured_seconds() -> None:
    spread = {"median": 2.0, "low": 1.0, "high": 3.0}
    row = {name: spread for name in ("vanilla", "pyramid", "ratio")}
    text = latency_rows([{**row, "system": "wan", "steps": [10, 20], "flop_ratio": 2.01}])
    cells = "2 [1, 3] | 2 [1, 3] | 2 [1, 3] | 2.01 | 50.52 | 27.76 | 1.82 |"
    assert text.splitlines()[2] == f"| wan | 10 + 20 | {cells}"


@pytest.mark.slow
def test_systems_are_timed_without_clips_and_kept(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {
        "model.level_channels": (8,), "model.level_depth": 1, "model.num_heads": 2,
        "model.num_groups": 4, "model.text_dim": 8, "model.num_text_tokens": 3,
        "sample.num_steps": 3,
    }  # fmt: skip
    flags = [f"--out={tmp_path}", "--systems=animatediff", "--rounds=2"]
    flags += ["--frame_shapes=4x8x8x4", *(f"--config.{k}={v}" for k, v in sizes.items())]
    assert table1.main(flags) == 0
    report = json.loads((tmp_path / "table1.json").read_text())
    (row,) = report["rows"]
    assert row["steps"] == [1, 1, 1] and row["vanilla_steps"] == [3]
    assert {len(seconds) for seconds in row["seconds"].values()} == {2}
    assert "latents 4x8x8x4" in capsys.readouterr().out
    assert table1.main(flags) == 0
    assert json.loads((tmp_path / "table1.json").read_text())["rows"] == [row], "kept"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--systems=sora"], "--systems is 'sora'"),
        (["--systems=wan", "--frame_shapes=4x8x8"], "'4x8x8' must be like 16x32x32x4"),
        (["--systems=wan", "--frame_shapes=1x1x1x1,1x1x1x1"], "2 shapes for 1 systems"),
        (["--systems=wan", "--config.sample.num_steps=two"], "num_steps"),
    ],
)
def test_bad_input_of_table1_is_one_line(
    flags: list[str], words: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert table1.main([f"--out={tmp_path}", *flags]) == 2
    assert words in capsys.readouterr().err
