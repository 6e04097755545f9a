"""What beginners write wrong: one line that names it once, says what is allowed, and code 2."""

import pathlib

import pytest

from tests.tiny import REPO, set_field, tiny_config
from tpdiff_jax import main
from tpdiff_jax.checks import did_you_mean
from tpdiff_jax.command_line import ExitCode
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.experiment.reader import ConfigReader
from tpdiff_jax.run_folder import run_config

FLOW = "--config=flow"
NO_FIELD = "the config has no such field"


def error_line(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that a command ends with."""
    with pytest.raises(SystemExit) as stop:
        main.main(["tpdiff_jax", *words])
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert stop.value.code == ExitCode.BAD_INPUT and captured.out == ""
    return line.removeprefix("tpdiff_jax: error: ")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.num_step=5", f"{NO_FIELD}; did you mean train.num_steps?"),
        ("trian.num_steps=5", f"{NO_FIELD}; did you mean train.num_steps?"),
        ("trian.seed=5", f"{NO_FIELD}; did you mean train.seed?"),
        ("num_steps=5", f"{NO_FIELD}; did you mean sample.num_steps, train.num_steps?"),
        ("learning_rate=5", f"{NO_FIELD}; did you mean optim.learning_rate?"),
        ("model.dept=5", f"{NO_FIELD}; did you mean model.depth?"),
        ("pyramid.strides.time=5", "pyramid.strides is a field, and has none of its own"),
        ("mesh.zzz=5", f"{NO_FIELD}; mesh has mesh."),
        ("zzz=5", f"{NO_FIELD}; its groups are adaptation, alignment, data, "),
        ("mesh=5", "a group cannot be set, only its fields: mesh."),
    ],
)
def test_an_unknown_field_is_named_once_with_the_nearest(
    override: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, _, value = override.partition("=")
    for words in ([f"--config.{override}"], [f"--config.{name}", value]):
        line = error_line(capsys, FLOW, "--workdir=w", *words)
        assert line.startswith(f"--config.{name}: {told}")
        assert line.count(f"{name}:") == 1 and "\n" not in line
    known = "--config.train.num_steps=7"  # a right one before it is not blamed
    assert error_line(capsys, FLOW, "--workdir=w", known, f"--config.{override}").startswith(
        f"--config.{name}: "
    )


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("train.num_steps=5.5", "whole numbers, such as 7000"),
        ("train.num_steps=many", "whole numbers, such as 7000"),
        ("train.seed=", "whole numbers, such as 0"),
        ("optim.learning_rate=fast", "numbers, such as 0.0045"),
        ("optim.learning_rate=1e-3x", "numbers, such as 0.0045"),
        ("model.qk_norm=maybe", "true or false, such as False"),
    ],
)
def test_a_value_of_a_wrong_type_is_told_which_are_right(
    override: str, allowed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, _, value = override.partition("=")
    line = error_line(capsys, FLOW, "--workdir=w", f"--config.{override}")
    assert line == f"--config.{name} is {value!r}; allowed: {allowed}"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([FLOW], "--workdir is required by --mode=train"),
        (["--workdir=w"], "--config is required by --mode=train"),
        (["--workdir=w", "--config=mine.py"], "--config=mine.py is not a file, nor one of those"),
        (["--workdir=w", "--config=flwo"], "--config=flwo is not a file, nor one of those that "),
        (["--workdir=w", FLOW, "--mode=trian"], "--mode is 'trian'; allowed: 'train', 'sample', "),
        (["--workdir=w", FLOW, "--train.num_steps=5"], "--train.num_steps is no flag of --mode="),
        ([FLOW, "--worddir=w"], "--worddir is no flag of --mode=train; it has --mode, "),
        (["--workdir=w", "--mode=sample", "--num_video=3"], "--num_video is no flag of --mode="),
    ],
)
def test_a_wrong_flag_is_one_line(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert error_line(capsys, *words).startswith(told)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ([FLOW, "--worddir=w"], "; did you mean --workdir?"),
        (["--workdir=w", "--mode=sample", "--num_video=3"], "; did you mean --num_videos?"),
        (["--workdir=w", "--mode=plan", "--topolgy=3"], "; did you mean --topology?"),
        (
            ["--workdir=w", FLOW, "--train.num_steps=5"],
            "; a field of the config is set by --config.train.num_steps=VALUE",
        ),
    ],
)
def test_a_wrong_flag_is_told_what_was_meant(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert error_line(capsys, *words).endswith(hint)


def test_the_workdir_of_another_config_is_one_line_with_the_differences(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "set_up_jax", lambda command: None)  # jax is set up already
    run_config.save_config(tmp_path, tiny_config("ddim"))
    line = error_line(capsys, FLOW, f"--workdir={tmp_path}")
    assert line.startswith("the workdir holds a run of another config (only train.num_steps, ")
    assert (
        "; path.name: saved 'ddim', now 'flow'; " in line and "model.depth: saved 1, now " in line
    )
    assert [path.name for path in tmp_path.iterdir() if path.name != ".train.lock"] == [
        "config.json"
    ]


def test_every_unknown_field_of_a_config_file_is_named_with_the_nearest() -> None:
    config = tiny_config()
    with config.unlocked():
        set_field(config, "train.num_step", 3)
        set_field(config, "guard.windows", 3)
    with pytest.raises(ValueError) as error:
        build_experiment(config)
    assert str(error.value) == (
        "unknown config field guard.windows; did you mean guard.window?; "
        "unknown config field train.num_step; did you mean train.num_steps?"
    )
    assert ConfigReader(config)("train.num_step") == 3


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("a.one", "; did you mean a.once?"),
        ("b.two", ""),
        ("once", "; did you mean a.once?"),
        ("c.one", "; did you mean b.one?"),
        ("", ""),
    ],
)
def test_the_nearest_names(name: str, hint: str) -> None:
    assert did_you_mean(name, ["a.once", "b.one", "c.width"]) == hint
    assert did_you_mean(name, []) == ""


def test_configs_say_commands_that_work_wherever_the_package_is() -> None:
    """By name, not by the path that only a checkout has."""
    for path in [*(REPO / "configs").glob("*.py"), *(REPO / "tpdiff_jax").rglob("*.py")]:
        lines = path.read_text().splitlines()
        own = [line for line in lines if "-m experiments." not in line]  # of a checkout alone
        assert not [line for line in own if "--config=configs/" in line], path.name
