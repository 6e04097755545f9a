"""The documents are right: the library example runs, every command parses, every name exists."""

import ast
import importlib
import importlib.util
import inspect
import re
import shlex
import types
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import tpdiff_jax
from tests.tiny import REPO
from tpdiff_jax import command_line, method
from tpdiff_jax.command_line.flag_table import FLAGS
from tpdiff_jax.generation.python_api import SamplingRun

TEXT = (REPO / "README.md").read_text()
METHOD = (REPO / "docs" / "method.md").read_text()
START = (REPO / "docs" / "getting_started.md").read_text()
PAGES = (REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").glob("*.md")))
RESULTS = sorted((REPO / "docs" / "results").glob("*.md"))
CONFIGS = sorted((REPO / "configs").glob("[a-z]*.py"))
MAIN = "tpdiff_jax.main"
GROUPS = (
    *("data", "model", "path", "pyramid", "alignment", "optim", "adaptation", "train", "log"),
    *("guard", "sample", "eval", "measure", "mesh", "prepare"),
)


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words behind `python -m` of every command: of blocks, lines and backquotes."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.S)
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    quoted = [command.replace("\n", " ") for command in re.findall(r"`([^`]+)`", prose)]
    for line in [line for block in blocks for line in _lines(block)] + quoted:
        if found := re.match(r"(?:[\w./]*/)?python -m (.*)", line.strip()):
            yield shlex.split(found[1], comments=True)
        elif found := re.match(r"tpdiff_jax (\w+ .*)", line.strip()):  # the installed command
            yield [MAIN, *shlex.split(f"--mode={found[1]}", comments=True)]


def _lines(block: str) -> list[str]:
    return re.sub(r"\\\n\s*", " ", block).replace(" && ", "\n").splitlines()


def python_blocks(text: str) -> list[str]:
    """Return the Python of a page, a text a block."""
    return re.findall(r"```python\n(.*?)```", text, re.S)


def header_commands(path: Path) -> Iterator[list[str]]:
    """Yield the commands of a config's header, each with the lines below that go on with it."""
    header = ast.get_docstring(ast.parse(path.read_text())) or ""
    joined = re.sub(r"\\\n\s*|\n\s+(?=--)", " ", header)
    for command in re.findall(r"python -m (.*)", joined):
        yield shlex.split(command)


def test_the_library_example_trains_and_samples() -> None:
    (code,) = python_blocks(METHOD)
    names: dict = {}
    exec(code.replace("# videos =", "videos = lambda predict, key, c, cond:"), names)
    pyramid, alignment = names["pyramid"], names["alignment"]
    video = jax.random.normal(jax.random.key(0), (alignment.group_size, *pyramid.shape, 1))

    def predict(x_t, t, positions, strides, cond):  # type: ignore[no-untyped-def]
        assert positions.frames.shape == x_t.shape[1:2] == (16 // strides[0],)
        assert (len(positions.rows), len(positions.columns)) == x_t.shape[2:4]
        return jnp.zeros_like(x_t)

    for stage_index in range(pyramid.num_stages):
        loss = names["loss"](predict, video, None, jax.random.key(1), stage_index)
        # A prediction of zero leaves the target's mean square. White videos: an even frame's detail
        # is (gamma_e - gamma_s) x, an odd one's gamma_e x - gamma_s x', in stage 0 all of x.
        stage = pyramid.stages[stage_index]
        gamma_e, gamma_s, length = stage.gamma_end, stage.gamma_start, stage.t_start - stage.t_end
        even, odd = (gamma_e - gamma_s) ** 2, gamma_e**2 + gamma_s**2
        expected = 2.0 if stage_index == 0 else 1.0 + 0.5 * (even + odd) / length**2
        assert abs(float(loss) / expected - 1.0) < 0.2
    samples = names["videos"](predict, jax.random.key(2), 1, None)
    assert samples.shape == (4, 16, 32, 32, 1)


@pytest.mark.parametrize("text", [TEXT, START], ids=["README", "getting_started"])
def test_the_lines_that_sample_call_what_is_there(monkeypatch, text: str) -> None:
    """As they stand, on a stand-in that takes what the real ones take."""
    called = []

    def recorded(function, *leading):  # type: ignore[no-untyped-def]
        def call(*args, **kwargs):  # type: ignore[no-untyped-def]
            inspect.signature(function).bind(*leading, *args, **kwargs)
            called.append((function.__name__, *args, *kwargs.values()))
            return run

        return call

    run = types.SimpleNamespace(
        sample=recorded(SamplingRun.sample, None), save=recorded(SamplingRun.save, None)
    )
    monkeypatch.setattr(tpdiff_jax, "open_run", recorded(tpdiff_jax.open_run), raising=False)
    (code,) = python_blocks(text)
    exec(code, {"tpdiff_jax": tpdiff_jax})
    wanted = [("open_sampling_run", "runs/flow"), ("sample", [3, 1, 4]), ("save", run, "clips")]
    assert called == wanted


def test_files_that_the_pages_name_exist() -> None:
    for page in PAGES:
        text = page.read_text()
        for path in re.findall(r"\]\((?!https?:)([\w./]+)[#)]", text):
            assert (page.parent / path).exists(), f"{page.name}: {path}"
        for path in re.findall(r"`([\w/]+/[\w/]+\.py)[`:]", text):
            is_example = path.split("/")[-1].startswith("my_") or "/my_" in path
            places = (REPO / path, REPO / "tpdiff_jax" / path)
            assert is_example or any(place.exists() for place in places), f"{page.name}: {path}"
        for path in re.findall(r"--config=(\S+\.py)", text):
            assert (REPO / path).exists(), f"{page.name}: {path}"


def test_the_pages_name_what_their_files_define() -> None:
    found = re.findall(r"`((?:method/)?\w+\.py)`: ((?:`\w+`(?:, )?)+)", METHOD)
    assert len(found) > 8
    for path, names in found:
        module = importlib.import_module(f"tpdiff_jax.{path.removesuffix('.py').replace('/', '.')}")
        for name in re.findall(r"\w+", names):
            assert getattr(module, name).__module__ == module.__name__, f"{path}: {name}"


def _main_commands() -> Iterator[tuple[str, list[str]]]:
    pages = [(page, commands(page.read_text())) for page in (*PAGES, *RESULTS)]
    for path, found in pages + [(path, header_commands(path)) for path in CONFIGS]:
        for program, *words in found:
            if program == MAIN and "--help" not in words:
                yield path.name, words


@pytest.mark.parametrize("page, words", list(_main_commands()))
def test_every_command_has_the_flags_of_its_mode(page: str, words: list[str]) -> None:
    command = command_line.parse(["main", *words])
    assert Path(command.values["workdir"]).parts
    given = {word.removeprefix("--").partition("=")[0].partition(".")[0] for word in words}
    owned = set(command_line.flags_of(command.mode))
    assert given <= owned | {f"no{name}" for name in owned if FLAGS[name].kind == "switch"}, page


def test_commands_of_all_modes_are_shown() -> None:
    shown = {command_line.parse(["main", *words]).mode for _, words in _main_commands()}
    assert shown == set(command_line.MODES)
    assert len(list(_main_commands())) > 25


def test_a_command_that_does_not_parse_is_seen() -> None:
    text = "```bash\npython -m tpdiff_jax.main --mode=doctor --workdir=runs/a \\\n  --step=3\n```\n"
    ((program, *words),) = commands(text)
    assert program == MAIN
    with pytest.raises(ValueError, match="--step is no flag of --mode=doctor"):
        command_line.parse(["main", *words])


@pytest.mark.parametrize("page", [*PAGES, *RESULTS], ids=lambda page: page.name)
def test_commands_of_other_programs_parse(page: Path) -> None:
    """By their own parsers; what they leave are fields of a config."""
    for program, *words in commands(page.read_text()):
        if program in (MAIN, "pytest", "venv"):
            continue
        module = importlib.import_module(program)
        if not hasattr(module, "_parser") or not words:
            continue
        _, rest = module._parser().parse_known_args(words)
        if rest[:1] == ["--"]:
            command_line.parse(["main", *rest[1:]])
            continue
        fields = [word for word in rest if not word.startswith(("--config=", "--workdir="))]
        assert all(word.startswith("--config.") for word in fields), (program, rest)
        command_line.parse(["main", "--config=configs/flow.py", "--workdir=w", *fields])


def test_config_fields_that_the_pages_name_exist() -> None:
    known = set()
    for path in CONFIGS:
        config = importlib.import_module(f"configs.{path.stem}").get_config()
        known |= {f"{group}.{field}" for group in config for field in config[group]}
    named = re.compile(rf"`(?:--config\.)?((?:{'|'.join(GROUPS)})\.\w+)(?:=[^`]*|\s=[^`]*)?`")
    for page in PAGES:
        for field in named.findall(page.read_text()):
            if not field.endswith((".py", ".md")):
                assert field in known, f"{page.name}: {field}"


def test_the_readme_names_every_exit_code() -> None:
    (sentence,) = re.findall(r"^Exit codes: (.*?)\.", TEXT, re.S | re.M)
    shown = {int(code) for code in re.findall(r"\b\d+\b", sentence)}
    assert shown == {code.value for code in command_line.ExitCode}


def test_the_readme_is_short_and_in_a_readers_order() -> None:
    assert len(TEXT.splitlines()) <= 250
    order = (
        *("# tpdiff_jax", "docs/flow_samples.gif", "## What trains on what", "## Install"),
        *("## Two commands", "configs/smoke.py", "## Your own clips", "--mode=doctor"),
        *("## Results", "## Scaling", "## The method", "CITATION.cff"),
    )
    places = [TEXT.index(part) for part in order]
    assert places == sorted(places)


def test_the_readmes_test_command_is_what_ci_runs() -> None:
    blocks = re.findall(r"```bash\n(.*?)```", TEXT, re.S)
    (block,) = (block for block in blocks if "pytest" in block)
    wanted = '-m pytest -n 2 -m "slow or not slow"'
    assert "pip install -q -r requirements-test.txt" in block and wanted in block
    ci = (REPO / ".ci" / "run").read_text()
    assert wanted in ci and "-r requirements-test.txt" in ci


def test_the_readme_lists_the_public_names_of_the_method() -> None:
    table = TEXT[TEXT.index("## The method") : TEXT.index("## More")]
    rows = re.findall(r"^\| `([\w.]+)` \| (.*) \|$", table, re.M)
    listed = [name for _, names in rows for name in re.findall(r"`(\w+)`", names)]
    assert sorted(listed) == sorted(method.__all__)
    doc = re.sub(r",\n {8,}", ", ", inspect.getdoc(method) or "")  # names that go on below
    lines = dict(re.findall(r"^    (\S+) +(.*)$", doc[doc.index("Public names") :], re.M))
    assert lines == {file: names.replace("`", "") for file, names in rows}


def test_the_run_folders_page_has_a_row_for_every_exit_code() -> None:
    page = (REPO / "docs" / "run_folder.md").read_text()
    rows = [int(code) for code in re.findall(r"^\| (\d+) \|", page, re.M)]
    assert rows == [code.value for code in command_line.ExitCode]


def test_every_network_is_in_the_readmes_table() -> None:
    table = TEXT[TEXT.index("## What trains on what") : TEXT.index("## Install")]
    shown = set(re.findall(r"`configs/(\w+)\.py`", table))
    for path in CONFIGS:
        config = importlib.import_module(f"configs.{path.stem}").get_config()
        if "model" in config and config.model.name != "video_dit" and "captioned" not in path.stem:
            assert path.stem in shown or path.stem.startswith("tiny"), path.stem
