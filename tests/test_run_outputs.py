"""What a run writes beside its checkpoints, and what a refused command leaves as it was.

Lost lines are said, none comes twice, and a full disk is one error.
"""

import errno
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.tiny import tiny_config
from tpdiff_jax import doctor, main, milestones, train
from tpdiff_jax.command_line import ExitCode
from tpdiff_jax.devices.origin import code_commit
from tpdiff_jax.experiment.build import Experiment, build_experiment
from tpdiff_jax.files import durable
from tpdiff_jax.files.durable import WriteError
from tpdiff_jax.run_folder import checkpoints as saving
from tpdiff_jax.run_folder.checkpoints import SaveError
from tpdiff_jax.run_log.goodput import summarise
from tpdiff_jax.run_log.json_lines import read_metrics

SIZES: dict[str, Any] = {
    "pyramid__frame_strides": (1,),
    "train__num_steps": 4,
    "train__log_every_steps": 1,
    "train__checkpoint_every_steps": 2,
    "train__keep_checkpoints": 9,
    "eval__num_videos": 2,
    "sample__num_videos": 1,
}


@pytest.fixture(scope="module", autouse=True)
def shared_compilation() -> Iterator[None]:
    """Compile the one program of all these runs once."""
    real, compiled = train.compile_steps, []

    def compile_once(experiment: Experiment, *args: Any) -> Any:
        if not compiled:
            compiled.append(real(experiment, *args))
        return compiled[0]

    train.compile_steps = compile_once
    yield
    train.compile_steps = real


def run(workdir: pathlib.Path, **overrides: Any) -> None:
    train.train(build_experiment(tiny_config(**(SIZES | overrides))), workdir)


def command(*arguments: str) -> int:
    """Run the command; the devices are those of the tests."""
    return main.run_mode(main.command_line.parse(["main", *arguments]))


@pytest.fixture(autouse=True)
def own_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "set_up_jax", lambda _: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A finished run; to be copied."""
    workdir = tmp_path_factory.mktemp("finished")
    run(workdir)
    return workdir


@pytest.fixture
def workdir(finished: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    return shutil.copytree(finished, tmp_path / "run")


def back_to_2(workdir: pathlib.Path) -> None:
    """As if the run had been killed behind step 2."""
    shutil.rmtree(workdir / "checkpoints" / "4")
    for name in ("results.json", "report.html"):
        (workdir / name).unlink()


def content(folder: pathlib.Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def steps_logged(workdir: pathlib.Path) -> list[int]:
    return [line["step"] for line in read_metrics(workdir / "metrics.jsonl") if "loss" in line]


def test_results_and_report_name_the_commit_but_no_command_of_another_program(
    finished: pathlib.Path,
) -> None:
    results = json.loads((finished / "results.json").read_text())
    assert results.get("commit", "") == code_commit(pathlib.Path(train.__file__).parent)
    assert "command" not in results, "pytest's is not what makes this run again"
    page = (finished / "report.html").read_text()
    assert results.get("commit", "versions") in page


# ---- lines that were lost


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        (None, "metrics.jsonl is missing, but lines up to step 2 were written"),
        (0, "metrics.jsonl ends at step 0, but lines up to step 2"),
        (1, "metrics.jsonl ends at step 1, but lines up to step 2"),
        (1.5, "metrics.jsonl ends at step 1, but lines up to step 2"),
        (2, ""),
    ],
)
def test_lines_lost_at_the_checkpoints_own_step_are_said(
    kept: float | None,
    told: str,
    workdir: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    back_to_2(workdir)
    path = workdir / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    if kept is None:
        path.unlink()
    else:
        half = lines[int(kept)][:20] if kept % 1 else b""
        path.write_bytes(b"".join(lines[: int(kept)]) + half)
    assert doctor.examine(workdir) == 2
    assert (told or "resume from step 2") in capsys.readouterr().out
    with caplog.at_level("WARNING", logger="absl"):
        run(workdir, train__num_steps=4)
    assert told in caplog.text and ("metrics.jsonl" in caplog.text) == bool(told)
    assert steps_logged(workdir) == [*range(1, int(kept or 0) + 1), 3, 4]


def test_lines_that_were_never_due_are_not_missed(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level("WARNING", logger="absl"):
        run(tmp_path, train__num_steps=1, train__log_every_steps=3)
        run(tmp_path, train__num_steps=4, train__log_every_steps=3)
        run(tmp_path, train__num_steps=5, train__log_every_steps=3)
    assert "metrics.jsonl" not in caplog.text
    assert doctor.examine(tmp_path) == 5
    assert "lost" not in capsys.readouterr().out


def test_an_evaluation_that_is_made_again_is_written_once(workdir: pathlib.Path) -> None:
    before = read_metrics(workdir / "metrics.jsonl")
    assert [line["step"] for line in before if "eval/label_accuracy" in line] == [4]
    for name in ("results.json", "report.html"):
        (workdir / name).unlink()
    run(workdir)
    (workdir / "results.json").write_text('{"counts": ')
    run(workdir)
    after = read_metrics(workdir / "metrics.jsonl")
    assert [line["step"] for line in after] == [line["step"] for line in before]
    assert [set(line) for line in after] == [set(line) for line in before]
    run(workdir, train__num_steps=5)
    evaluated = [
        line["step"] for line in read_metrics(workdir / "metrics.jsonl") if "loss" not in line
    ]
    assert evaluated == [4, 5], "that of the shorter run stays"


def test_a_run_that_cannot_be_measured_ends_with_results_that_say_why(
    tmp_path: pathlib.Path,
) -> None:
    run(tmp_path, train__num_steps=1, eval__num_videos=1, train__eval_every_steps=1)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["metrics"] == {} and results["counts"]["eval_videos"] == 0
    (note,) = results["notes"]
    assert note == "nothing is measured: eval.num_videos=1, and a set needs two videos"
    page = (tmp_path / "report.html").read_text()
    assert note in page and "has not been evaluated" not in page
    with pytest.raises(ValueError, match=f"^{note}; --mode=sample writes videos to look at$"):
        command("--mode=evaluate", f"--workdir={tmp_path}")


def test_damaged_lines_of_the_account_of_time_are_left_out() -> None:
    line = {"session": "1", "step": 2, "from_step": 0, "ended_at": 9.0, "wall_seconds": 4.0}
    line |= {"training_seconds": 3.0, "other_seconds": 1.0}
    odd: list[dict[str, Any]] = [
        {"step": 3},
        line | {"wall_seconds": "four"},
        line | {"training_seconds": None},
        line | {"from_step": -1},
        line | {"session": 7},
        {name: value for name, value in line.items() if name != "ended_at"},
    ]
    assert summarise([*odd, line, *odd]) == summarise([line])
    assert summarise([line])["seconds"]["training"] == 3.0


ODD_LINES = [
    '{"step": 3, "loss": "many"}',
    '{"step": 3, "loss": [1]}',
    '{"step": -3, "loss": 1.0}',
    '{"step": 1e400, "loss": 1.0}',
    '{"step": 3, "loss": 1' + "0" * 400 + "}",
    '{"step": 3, "loss": {"a": 1}}',
    '{"step": "3", "loss": 1.0}',
    "[" * 100_000,
    "\0",
]


def test_odd_lines_of_metrics_are_left_out_and_stop_nothing(workdir: pathlib.Path) -> None:
    path = workdir / "metrics.jsonl"
    before = read_metrics(path)
    for name in ("results.json", "report.html"):
        (workdir / name).unlink()
    path.write_text("\n".join([*ODD_LINES, path.read_text() + ODD_LINES[0], ""]))
    (workdir / "goodput.jsonl").write_text("\n".join([*ODD_LINES, ""]))
    assert read_metrics(path) == before
    run(workdir)
    assert steps_logged(workdir) == [1, 2, 3, 4] and (workdir / "report.html").is_file()


# ---- a full disk


def fail_for(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on no file of this ending can be written: the disk is full."""
    real = durable.publish

    def publish(temporary: pathlib.Path, path: pathlib.Path) -> None:
        if path.name.endswith(suffix):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(temporary, path)

    monkeypatch.setattr(durable, "publish", publish)


@pytest.mark.parametrize("name", ["label_0.mp4", "grid.gif", "results.json", "report.html"])
def test_a_disk_that_fills_at_the_end_is_code_6_and_with_room_again_the_run_ends(
    name: str, workdir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = json.loads((workdir / "results.json").read_text())["metrics"]
    back_to_2(workdir)
    fail_for(name, monkeypatch)
    with pytest.raises(WriteError, match=rf"{name} could not be written \(No space left") as error:
        run(workdir)
    assert main.exit_code(error.value) == ExitCode.SAVE_FAILED
    monkeypatch.undo()
    assert {p.name for p in (workdir / "checkpoints").iterdir()} == {"2", "4"}
    assert not [path for path in workdir.rglob("*.tmp")]
    run(workdir)
    assert json.loads((workdir / "results.json").read_text())["metrics"] == expected
    assert (workdir / "report.html").is_file() and steps_logged(workdir) == [1, 2, 3, 4]


def test_a_disk_that_fills_in_the_loop_is_the_save_error_and_not_that_of_closing(
    workdir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_to_2(workdir)

    def no_space(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(saving, "write_checkpoint_manifest", no_space)
    with pytest.raises(SaveError, match=r"step 4 could not be saved .*untouched: \[2\]") as error:
        run(workdir, train__num_steps=9)
    assert main.exit_code(error.value) == ExitCode.SAVE_FAILED


# ---- a refusal


def refuse_milestones(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise ValueError("sample.video_weights: not the right ones")

    monkeypatch.setattr(milestones, "open_decoder", refuse)


def refuse_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise ValueError("stage 0: shapes do not fit")

    monkeypatch.setattr(train, "compile_steps", refuse)


def refuse_space(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))


@pytest.mark.parametrize("refuse", [refuse_milestones, refuse_compiling, refuse_space])
@pytest.mark.parametrize("is_new", [True, False])
def test_a_training_command_that_is_refused_late_leaves_everything_as_it_was(
    refuse: Any,
    is_new: bool,
    workdir: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "new" if is_new else workdir
    if is_new:
        folder.mkdir()
    else:
        (folder / "checkpoints" / "9.saving").mkdir()
        (folder / "metrics.jsonl").write_text("lost")
    before = content(folder)
    refuse(monkeypatch)
    with pytest.raises(ValueError):
        run(folder, train__num_steps=10**6, train__keep_checkpoints=9)
    assert content(folder) == before


def test_a_refused_sample_evaluation_export_and_replay_change_nothing(
    workdir: pathlib.Path,
) -> None:
    before = content(workdir)
    for flags in (
        ["--mode=sample", "--labels=99"],
        ["--mode=sample", "--step=3"],
        ["--mode=sample", "--naming=vbench", "--caption=a/b"],
        ["--mode=evaluate", "--step=3"],
        ["--mode=export", "--layout=diffusers"],  # it has one of its own alone
        ["--mode=replay", "--step=99"],
        ["--mode=doctor", "--trust_step=4"],
    ):
        with pytest.raises(ValueError):
            command(f"--workdir={workdir}", *flags)
        assert content(workdir) == before, flags
    other = ["--config=configs/flow.py", "--config.train.num_steps=2"]
    with pytest.raises(ValueError):
        command(f"--workdir={workdir}", *other)
    assert {**content(workdir), ".train.lock": None} == {**before, ".train.lock": None}


# ---- odd files


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "3",
        '{"a":' * 60_000,
        "{}",
        '{"train": 3}',
        '{"train": {"num_steps": "many", "log_every_steps": 1}}',
        '{"train": {"num_steps": -4, "log_every_steps": 1}}',
    ],
)
def test_an_odd_config_is_one_line_in_every_mode(text: str, workdir: pathlib.Path) -> None:
    (workdir / "config.json").write_text(text)
    for mode in ("sample", "evaluate", "export", "replay", "doctor"):
        step = ["--step=1"] if mode == "replay" else []
        with pytest.raises(ValueError) as error:
            command(f"--mode={mode}", f"--workdir={workdir}", *step)
        assert len(str(error.value)) < 600 and str(error.value).count("\n") == 0
    with pytest.raises(ValueError):
        run(workdir)


@pytest.mark.parametrize("field", ["mesh.data", "adaptation.trained", "guard.spike_factor"])
@pytest.mark.parametrize("value", ["text", None, [1, "a"], {"x": 1}])
def test_a_field_of_a_wrong_kind_is_one_line(field: str, value: Any, workdir: pathlib.Path) -> None:
    config = json.loads((workdir / "config.json").read_text())
    group, name = field.split(".")
    config[group][name] = value
    (workdir / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError) as error:
        command("--mode=sample", f"--workdir={workdir}")
    assert "\n" not in str(error.value).splitlines()[0]


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"counts": {"steps": "4"}}', '{"counts": 4}', "\0"]
)
def test_odd_results_are_written_again(text: str, workdir: pathlib.Path) -> None:
    (workdir / "results.json").write_text(text)
    run(workdir)
    assert json.loads((workdir / "results.json").read_text())["counts"]["steps"] == 4
