"""Each mode owns its flags: a foreign one, or a word that is no flag, is refused by name."""

import pathlib
import subprocess
import sys

import pytest

from launch import local
from launch.job import Job
from tests.tiny import REPO
from tpdiff_jax import main
from tpdiff_jax.command_line import (
    DEVICE_MODES,
    EXIT_CODES,
    FLAGS,
    MODES,
    ExitCode,
    flags_of,
    help_text,
    list_flags,
    parse,
)

FLOW = "configs/flow.py"
VALUES = {"switch": "true", "integer": "1", "number": "0.5"}


def arguments(mode: str, *names: str) -> list[str]:
    """A command line of a mode with what it needs and the named flags."""
    given = {"mode": mode, "workdir": "w"}
    needed = [name for name, flag in flags_of(mode).items() if mode in flag.needed_by]
    for name in (*needed, *names):
        flag = FLAGS[name]
        words = flag.allowed[-1:] or [VALUES.get(flag.kind, "x")]
        given.setdefault(name, FLOW if flag.kind == "config" else words[0])
    return ["tpdiff_jax", *(f"--{name}={value}" for name, value in given.items())]


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_takes_all_of_its_flags_and_no_other(mode: str) -> None:
    own = flags_of(mode)
    command = parse(arguments(mode, *own))
    assert command.mode == mode and command.values.keys() == own.keys()
    assert set(main.RUN) == set(MODES)
    for name in FLAGS.keys() - own.keys():
        with pytest.raises(ValueError) as error:
            parse(arguments(mode, name))
        owners = ", ".join(FLAGS[name].modes)
        line = f"--{name} is no flag of --mode={mode} but of {owners}; it has {list_flags(mode)}"
        assert str(error.value) == line


def test_every_mode_names_a_workdir_and_what_else_it_cannot_do_without() -> None:
    for mode in MODES:
        needed = [name for name, flag in flags_of(mode).items() if mode in flag.needed_by]
        assert ("workdir" in needed) == (mode != "advise")  # which prints what it found
        for missing in needed:
            words = [w for w in arguments(mode) if not w.startswith(f"--{missing}=")]
            with pytest.raises(ValueError, match=f"^--{missing} is required by --mode={mode}$"):
                parse(words)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--mode=sample", "stray"], "'stray' is no flag; --mode=sample has --mode, --workdir"),
        (["stray", "--mode=sample"], "'stray' is no flag; --mode=sample has"),
        (["--mode=doctor", "--", "--step=3"], "'--step=3' is no flag"),
        (["--mode=sample", "--checkpoint_step=3"], "--checkpoint_step is called --step now"),
        (["--mode=plan", "--nolargest_batc"], "--nolargest_batc is no flag of --mode=plan; it has"),
        (["--mode=doctor", "--nolargest_batch"], "but of plan; it has"),
        (["--mode=replay", "--config.train.seed=1"], "--config.train.seed is no flag of"),
        (["--mode=doctor", "--config=no.py"], "--config is no flag of --mode=doctor but of train"),
        (["--mode=sample", "--config.sample.seed=1"], "--config, which is missing"),
        (["--mode=doctor", "--undefok=step", "--step=3"], "--undefok is no flag of --mode=doctor"),
        (["--mode=fly"], "--mode is 'fly'; allowed: 'train', 'sample'"),
        (["--mode"], "Missing value for flag --mode"),
        (["--mode=sample", "--naming=clip"], "--naming is 'clip'; allowed: 'numbers', 'vbench'"),
        (["--mode=sample", "--num_videos=0"], "--num_videos is 0; allowed: at least 1"),
        (["--mode=sample", "--seed=many"], "--seed=many"),
        ([f"--config={FLOW}", "--config.train.num_stepz=3"], "--config.train.num_stepz"),
        ([f"--config={FLOW}", "--config.trian.seed=3"], "--config.trian.seed: the config has no "),
        ([f"--config={FLOW}", "--config.data.nope=3"], "--config.data.nope: the config has no "),
        ([f"--config={FLOW}", "--config.nope=3"], "--config.nope: the config has no "),
        (["--config=README.md"], "--config is no Python that can be read: "),
        (["--config=pyproject.toml"], "--config is no Python that can be read: "),
        (["--config", "LICENSE"], "--config is no Python that can be read: "),
        (["--config", "nothing.py"], "--config=nothing.py is not a file"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(words: list[str], named: str) -> None:
    with pytest.raises(ValueError) as error:
        parse(["tpdiff_jax", "--workdir=w", *words])
    assert named in str(error.value) and "\n" not in str(error.value)


PATHS = [name for name, flag in FLAGS.items() if flag.kind in ("path", "place")]


@pytest.mark.parametrize("name", [*PATHS, "compilation_cache"])
def test_a_leading_tilde_is_the_users_folder_in_every_path(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """Bash leaves it where it is in `--workdir=~/runs`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    mode = FLAGS[name].modes[0]
    words = [word for word in arguments(mode) if not word.startswith(f"--{name}=")]
    assert parse([*words, f"--{name}=~/x"]).values[name] == f"{tmp_path}/x"
    assert parse([*words, f"--{name}=./~/x"]).values[name] == "./~/x"


def test_a_leading_tilde_is_the_users_folder_in_configs_and_their_fields(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    text = (REPO / "configs" / "video_folder.py").read_text()
    (tmp_path / "mine.py").write_text(text)
    words = ["--config=~/mine.py", "--workdir=w", "--config.data.folder=~/clips"]
    assert parse(["tpdiff_jax", *words]).values["config"].data.folder == f"{tmp_path}/clips"


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("address", ["gs://bucket/x", "file:///x", "gs:/bucket/x", "gs://bucket"])
def test_no_flag_that_names_a_path_takes_an_address(name: str, address: str) -> None:
    mode = FLAGS[name].modes[0]
    words = [word for word in arguments(mode) if not word.startswith(f"--{name}=")]
    # Runs and prepared clips may lie in a bucket.
    if name in ("workdir", "data_folder") and address == "gs://bucket/x":
        assert parse([*words, f"--{name}={address}"]).values[name] == address
        return
    with pytest.raises(ValueError, match=f"^--{name}={address} is an address"):
        parse([*words, f"--{name}={address}"])


def test_flags_that_hold_paths_are_known_to() -> None:
    assert {"workdir", "out", "prompts"} <= set(PATHS)
    assert {n for n in FLAGS if n.endswith(("weights", "folder"))} <= set(PATHS)


def test_a_config_that_the_mode_does_not_read_is_not_run(tmp_path: pathlib.Path) -> None:
    config = tmp_path / "config.py"
    config.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ValueError, match="--config is no flag of --mode=doctor"):
        parse(["tpdiff_jax", "--workdir=w", "--mode=doctor", f"--config={config}"])
    assert not (tmp_path / "ran").exists()


def test_overrides_reach_the_config() -> None:
    command = parse(
        [*arguments("train"), "--config.train.num_steps=7", "--config.model.depth", "3"]
    )
    config = command.values["config"]
    assert (config.train.num_steps, config.model.depth) == (7, 3)
    strides = "--config.pyramid.strides=((1,4,4),(1,2,2),(1,1,1))"
    pyramid = parse([*arguments("train"), strides]).values["config"].pyramid
    assert pyramid.strides == ((1, 4, 4), (1, 2, 2), (1, 1, 1)) and pyramid.frame_strides == ()
    again = parse(arguments("train")).values["config"]
    assert again.train.num_steps != 7, "one command line must not change the next"


def test_what_launchers_add_is_owned_by_every_mode_on_devices() -> None:
    for mode in DEVICE_MODES:
        for words in local.commands(2, 1234, arguments(mode)[1:]):
            own = words[words.index("tpdiff_jax.main") + 1 :]
            values = parse(["tpdiff_jax", *own, "--compilation_cache=c"]).values
            assert values["coordinator_address"] == "localhost:1234"
            assert values["num_processes"] == 2
    job = Job(name="a", config=FLOW, workdir="/runs/a", overrides={"train.num_steps": "9"})
    words = job.command()
    command = parse(words[words.index("tpdiff_jax.main") :])
    assert command.mode == "train" and command.values["config"].train.num_steps == 9


def test_help_of_a_mode_shows_its_flags_and_no_others() -> None:
    everything = help_text(["tpdiff_jax", "--help"])
    for word in (*(f"--mode={mode} " for mode in MODES), *(f"--{name}" for name in FLAGS)):
        assert word in everything
    for mode in MODES:
        text = help_text(["tpdiff_jax", f"--mode={mode}", "--help"])
        shown = {line.split()[0] for line in text.splitlines() if line.startswith("  --")}
        assert shown == {f"--mode={mode}"} | {f"--{n}" for n in flags_of(mode) if n != "mode"}
        for code, meaning in EXIT_CODES.items():
            assert f"{code.value} {meaning.split()[0]}" in " ".join(text.split())


@pytest.mark.parametrize("mode", MODES)
def test_help_of_a_mode_opens_with_a_command_of_that_mode(mode: str) -> None:
    for words in ([f"--mode={mode}"], ["--mode", mode], [f"-mode={mode}"]):
        text = help_text(["tpdiff_jax", *words, "--help"])
        first, second, *_ = text.splitlines()
        command = parse(first.split("`")[1].split()[2:])
        assert command.mode == mode and first.startswith("Command line: `python -m tpdiff_jax.main")
        assert second.split("`")[1].split()[:2] == ["tpdiff_jax", mode]
        owns_config = "config" in flags_of(mode)
        assert ("Every config field" in text) == owns_config
    (first, *_) = help_text(["tpdiff_jax", "--help"]).splitlines()
    assert parse(first.split("`")[1].split()[2:]).mode == "train"


@pytest.mark.parametrize("words", [["--version"], ["-version"], ["--mode=sample", "--version"]])
def test_the_version_is_that_of_the_package_and_of_jax(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import jax

    monkeypatch.setattr(sys, "argv", ["tpdiff_jax", *words])
    monkeypatch.setattr(main, "leave_at_sigterm", lambda code: None)
    with pytest.raises(SystemExit) as stop:
        main.run_command()
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"tpdiff_jax 0.1.0, jax {jax.__version__}\n"


def test_every_exception_that_has_a_code_exists_and_gets_it() -> None:
    import importlib

    for name, code in main.STOPS.items():
        module, _, kind = name.rpartition(".")
        error = getattr(importlib.import_module(module), kind)
        assert main.exit_code(error.__new__(error)) == code
        assert main.exit_code(type("Sub", (error,), {}).__new__(error)) == code
    assert main.exit_code(ValueError("x")) == ExitCode.BAD_INPUT
    assert main.exit_code(PermissionError("x")) == ExitCode.BAD_INPUT
    assert main.exit_code(RuntimeError("x")) is None
    unused = set(ExitCode) - {*main.STOPS.values()}
    own = {ExitCode.DONE, ExitCode.DIFFERS, ExitCode.INTERRUPTED}
    assert unused == own


def test_a_mistake_on_the_command_line_does_not_wait_for_jax() -> None:
    code = (
        "import sys; from tpdiff_jax import main\n"
        "try: main.main(['tpdiff_jax', '--mode=train', '--workdir=w'])\n"
        "except SystemExit as stop: print(stop.code, 'jax' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert out.stdout == "2 False\n", out.stderr
    assert out.stderr == "tpdiff_jax: error: --config is required by --mode=train\n"


def test_flags_reach_what_a_mode_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    from tpdiff_jax import evaluate, export, plan, sample
    from tpdiff_jax.generation import from_checkpoint

    calls: list[tuple] = []
    monkeypatch.setattr(main, "set_up_jax", lambda command: None)
    monkeypatch.setattr(from_checkpoint, "open_run", lambda *a, **kw: calls.append((a, kw)))
    for module, name in (
        *((sample, "sample_run"), (evaluate, "evaluate_run")),
        *((export, "export_run"), (plan, "plan")),
    ):
        monkeypatch.setattr(module, name, lambda *a: calls.append(a))
    words = ["--step=4", "--seed=3", "--steps_per_stage=2,3", "--caption=a, b", "--caption=c"]
    assert main.run_mode(parse([*arguments("sample"), *words, "--out=o"])) == ExitCode.DONE
    (opened, generated) = calls
    assert opened[0] == (pathlib.Path("w"),) and opened[1]["step"] == 4
    overrides = opened[1]["overrides"]
    assert (overrides.seed, overrides.steps_per_stage, overrides.num_videos) == (
        3,
        ["2", "3"],
        None,
    )
    assert generated[1].captions == ["a, b", "c"] and not generated[1].labels
    assert generated[1].texts == ["a, b", "c"] and generated[2] == pathlib.Path("o")
    calls.clear()
    main.run_mode(parse([*arguments("evaluate"), "--fvd_weights=f"]))
    assert calls[0][1]["overrides"].fvd_weights == "f" and calls[0][1]["step"] is None
    calls.clear()
    main.run_mode(parse([*arguments("export"), "--layout=l"]))
    assert calls[1][1:] == ("l", "float32", None)
    calls.clear()
    main.run_mode(parse([*arguments("plan"), "--frame_shape=4,8,8,1", "--nolargest_batch"]))
    flags = calls[0][2]
    assert (flags.frame_shape, flags.search_batch, flags.topology) == ((4, 8, 8, 1), False, "local")
