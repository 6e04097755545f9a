"""No command takes a word or a flag that is not its own: code 2, one line, and nothing is done."""

import importlib
import pathlib

import pytest

from tests.tiny import REPO
from tpdiff_jax import main
from tpdiff_jax.command_line import FLAGS, MODES, ExitCode, flags_of

FOREIGN = [
    *("stray", "stray=1", "--nosuch=3", "--nosuch", "-x", "-", "--=3", "---workdir=x", "--work=x"),
    *("--config.nosuch.field=3", "--config.=3", "-config.train.num_steps", "é", "train", ""),
]
COMMANDS: dict[str, list[str]] = {
    "experiments.compare": ["--grid=main", "--out=OUT", "--only=plan"],
    "experiments.convergence": ["--out=OUT", "--only=plan"],
    "experiments.sampling": ["--workdirs=OUT", "--out=OUT"],
    "experiments.side_by_side": ["--workdirs=OUT", "--out=OUT"],
    "experiments.soak": ["--out=OUT"],
    "experiments.captioned_digits": ["--out=OUT"],
    "launch.gke": ["delete", "--name=tp", "--dry-run"],
    "launch.tpu_vm": ["delete", "--name=tp", "--zone=here-1a", "--dry-run"],
    "launch.slurm": ["--name=tp", "--workdir=/r", "--dry-run"],
    "launch.sweep": ["--out=OUT", "--grid=train.seed=1,2", "--dry-run"],
    "launch.local": ["--dry-run", "--", "--config=configs/flow.py", "--workdir=x"],
    "bench.checkpoint": ["--out=OUT"],
    "bench.data": ["--out=OUT"],
    "bench.guard": ["--out=OUT"],
    "bench.cost": ["--out=OUT"],
    "bench.latency": ["--out=OUT"],
    "bench.memory": ["--out=OUT"],
    "bench.low_rank": ["--out=OUT"],
    "bench.compile_time": ["--out=OUT"],
    "bench.attention": ["--out=OUT"],
    "bench.startup": ["--out=OUT"],
    "tpdiff_jax.evals.vbench": ["table"],
    "tpdiff_jax.evals.convert_i3d": ["in.pt", "out.npz"],
    "tpdiff_jax.digits.make_digit_classifier": [],
}


def exit_code(run: object, *arguments: object) -> object:
    """What a program ends with, whether it returns or exits."""
    try:
        return run(*arguments)  # type: ignore[operator]
    except SystemExit as stop:
        return stop.code


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_refuses_what_is_not_its_own(
    mode: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "run_mode", lambda command: pytest.fail(f"did {command}"))
    needed = [name for name, flag in flags_of(mode).items() if mode in flag.needed_by]
    values = {"config": "configs/flow.py", "step": "1", "workdir": "w"}
    own = [f"--mode={mode}", *(f"--{name}={values.get(name, 'x')}" for name in needed)]
    others = [f"--{name}=1" for name in FLAGS.keys() - flags_of(mode).keys()]
    for word in (*FOREIGN, *others):
        for words in ([*own, word], [word, *own]):
            if word == "-x" and words[0] == word:  # absl takes what follows for its value
                continue
            assert exit_code(main.main, ["tpdiff_jax", *words]) == ExitCode.BAD_INPUT, words
            captured = capsys.readouterr()
            assert captured.out == "" and captured.err.startswith("tpdiff_jax: error: ")
            assert captured.err.count("\n") == 1, captured.err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_other_command_refuses_what_is_not_its_own(
    name: str,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(REPO)
    run = importlib.import_module(name).main
    own = [word.replace("OUT", str(tmp_path / "out")) for word in COMMANDS[name]]
    for word in ("stray", "--nosuch=3", "--nosuch", "-x", "--config.nosuch=3", "--ou=x"):
        if name.endswith("vbench") and not word.startswith("-"):
            continue  # it takes files
        code = exit_code(run, [*own, word])
        captured = capsys.readouterr()
        assert code == ExitCode.BAD_INPUT, (word, captured.err)
        assert "Traceback" not in captured.err and captured.err
        assert not (tmp_path / "out").exists(), word
