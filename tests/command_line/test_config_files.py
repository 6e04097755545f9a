"""A config file of one's own: what is wrong in it is one line with its name, and code 2."""

import pathlib

import pytest

from tests.command_line.test_mistakes import error_line
from tpdiff_jax.command_line import parse
from tpdiff_jax.command_line.shipped_configs import config_folder, find_config

HEAD = "from configs import flow\ndef get_config():\n    c = flow.get_config()\n"
NO_FIELD = "the config has no such field"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def get_config():\n    return 1/0\n", ", line 2: ZeroDivisionError: division by zero"),
        ("\n\nimport nosuch_module\n", ", line 3: ModuleNotFoundError: No module named 'nosuch_"),
        ("raise OSError\n", ", line 1: OSError"),
        ("open('no/such/file')\n", ", line 1: FileNotFoundError: [Errno 2] No such file"),
        ("raise TypeError('two\\nlines')\n", ", line 1: TypeError: two lines"),
        (
            "def get_config():\n    def deep():\n        assert False, 'no'\n    deep()\n",
            ", line 3: A",
        ),
        ("raise SystemExit(0)\n", ", line 1: SystemExit: 0"),
        ("import json\njson.loads('{')\n", ", line 2: JSONDecodeError: Expecting property name"),
        ("def get_config(name):\n    pass\n", ": TypeError: get_config() missing 1 required"),
        ("a = 1\n", ": it has no function get_config(), which returns a ConfigDict"),
        ("", ": it has no function get_config(), "),
        ("get_config = 3\n", ": it has no function get_config(), "),
        ("def get_config():\n    pass\n", ": get_config() returned nothing; allowed: a ConfigDict"),
        ("get_config = dict\n", ": get_config() returned a dict; allowed: a ConfigDict"),
        ("def get_config():\n    return 'flow'\n", ": get_config() returned a str; allowed: a "),
        (
            "from ml_collections import ConfigDict as get_config\n",
            ": get_config() returned a ConfigDict without fields",
        ),
        (
            f"{HEAD}    c.train.num_step = 5\n",
            f", line 4: train.num_step: {NO_FIELD}; did you mean train.num_steps?",
        ),
        (
            f"{HEAD}    c['optim']['learning_rat'] = 5\n",
            f", line 4: optim.learning_rat: {NO_FIELD}; did you mean optim.learning_rate?",
        ),
        (
            f"{HEAD}\n    c.update({{'model': {{'dept': 5}}}})\n",
            f", line 5: model.dept: {NO_FIELD}; did you mean model.depth?",
        ),
        (
            f"{HEAD}    c.trian = 5\n",
            f", line 4: trian: {NO_FIELD}; its groups are adaptation, alignment, data, ",
        ),
        (
            f"{HEAD}    return c.train.sed\n",
            f", line 4: train.sed: {NO_FIELD}; did you mean train.s",
        ),
        (
            f"{HEAD}    change(c.model)\ndef change(group):\n    group.dept = 3\n",
            f", line 6: dept: {NO_FIELD}; did you mean depth?",
        ),
        (
            f"{HEAD}    c.train.num_steps = 'many'\n",
            ", line 4: TypeError: Could not override field ",
        ),
    ],
)
def test_what_is_wrong_in_a_config_file_is_one_line(
    text: str, told: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    for words in ([f"--config={path}"], ["--config", str(path), "--config.train.seed=1"]):
        line = error_line(capsys, "--workdir=w", "--mode=plan", *words)
        assert line.startswith(f"--config={path}{told}") and len(line) < 400


def test_a_config_file_runs_once_and_its_fields_are_overridden_wherever_the_flag_stands(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "mine"
    count = f"with open({str(tmp_path / 'ran')!r}, 'a') as file:\n    file.write('x')\n"
    path.write_text(f"{count}{HEAD}    return c\n")
    own = ["main", "--mode=plan", "--config.train.num_steps=7", f"--config={path}", "--workdir=o"]
    for number, words in enumerate((own, [*own, "--config.train.seed", "3"]), start=1):
        config = parse(words).values["config"]
        assert (config.train.num_steps, config.train.seed) == (7, 0 if number == 1 else 3)
        assert (tmp_path / "ran").read_text() == "x" * number
    (tmp_path / "flags.txt").write_text("--config=smoke\n")
    config = parse([*own[:2], f"--flagfile={tmp_path / 'flags.txt'}", "--workdir=o"]).values
    assert config["config"].train.num_steps == 1000
    given = parse(["main", "--mode=sample", "--workdir=w", "--caption", "--config=no.py"]).values
    assert (given["caption"], given["config"]) == (["--config=no.py"], None)


@pytest.mark.parametrize("name", ["flow", "smoke", "ddim"])
def test_a_shipped_name_goes_before_a_file_of_that_name(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in (name, f"{name}.py", "mine"):
        (tmp_path / file).write_text("raise RuntimeError\n")
    assert find_config(name) == config_folder() / f"{name}.py"
    for file in (f"{name}.py", f"./{name}", f"./{name}.py", str(tmp_path / name), "mine"):
        assert find_config(file) == pathlib.Path(file)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("smok", "smoke"),
        ("Smoke", "smoke"),
        ("flwo", "flow"),
        ("dim.py", "ddim"),
        ("a/prepar", "p"),
    ],
)
def test_a_misspelled_name_is_told_the_nearest(wrong: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"^--config={wrong} is not .*; did you mean {meant}"):
        find_config(wrong)


@pytest.mark.parametrize("word", ["--config=", "--workdir=", "-mode=", "--config.train.seed="])
def test_a_blank_behind_the_sign_is_told(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = error_line(capsys, word, "3x", "--config=flow")
    assert line == f"{word} 3x has a blank behind the =; write {word}3x"


def test_a_file_changed_within_a_second_is_read_anew(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "mine.py"
    for seed in (1, 2, 3):
        path.write_text(f"{HEAD}    c.train.seed = {seed}\n    return c\n")
        config = parse(["main", "--mode=plan", "--workdir=o", f"--config={path}"]).values["config"]
        assert config.train.seed == seed
    assert [file.name for file in tmp_path.iterdir()] == ["mine.py"]
