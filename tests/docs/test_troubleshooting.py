"""docs/troubleshooting.md shows what the code says: every message is one that its source makes."""

import ast
import mmap
import re
from collections.abc import Iterator
from pathlib import Path

import jax
import jaxlib
import pytest

from tests.tiny import REPO
from tpdiff_jax import command_line
from tpdiff_jax.checks import check_choice
from tpdiff_jax.run_folder import run_config
from tpdiff_jax.training.training_folder import only_trainer
from tpdiff_jax.weights.tensor_files import open_tensor_folder

PAGE = (REPO / "docs" / "troubleshooting.md").read_text()
NOT_OURS = re.compile(r" \((jax|XLA|gloo|libtpu)'s own\)$")
VARIES = r"\[Com.*?\]|\.\.\.|\bcpu\b\.?|[\dm]+\d\.\ds|> 1s|jit_|\b[01]\b"  # of the libraries' lines
LEAST_LETTERS = 14  # of a message's fixed part: less could be any text


def messages(page: str) -> Iterator[str]:
    """Yield the messages of the tables' first columns, as they appear."""
    for row in re.findall(r"^\| (`.*) \|$", page, re.M):
        first = re.split(r"(?<!\\) \| ", row)[0]
        if not NOT_OURS.search(first) and "(a plan)" not in first:
            yield re.findall(r"`(.*?)`", first)[0]


def lines_of_libraries() -> Iterator[tuple[str, str]]:
    """Yield whose line it is, and the line, of those that are not ours."""
    for first in re.findall(r"^\| (`.*?) \| ", PAGE, re.M):
        if found := NOT_OURS.search(first):
            yield found[1], re.findall(r"`(.*)`", first)[0]


def templates() -> list[str]:
    """Return what the package's texts can say: fixed parts, and `{}` for the others."""
    found = set()
    for path in (REPO / "tpdiff_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else "{}" for p in node.values)
                found.add("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(re.sub(r"%[sd]|%\.\d+f", "{}", node.value))
    return [*found]


def fixed_parts(template: str) -> list[str]:
    """Return what stands between the parts that vary, as patterns; of several lines the first."""
    return [re.escape(part) for part in template.replace("`", "").split("\n")[0].split("{}")]


def whole_patterns(known: list[str]) -> list[re.Pattern[str]]:
    """Return the patterns of whole messages whose fixed part is long enough."""
    found = (fixed_parts(template) for template in known)
    return [re.compile(".+?".join(p)) for p in found if sum(map(len, p)) >= LEAST_LETTERS]


def beginnings(known: list[str]) -> Iterator[str]:
    """Yield the patterns of how messages may begin."""
    for parts in map(fixed_parts, known):
        for end in range(1, len(parts) + 1):
            if sum(map(len, parts[:end])) >= LEAST_LETTERS:
                yield ".+?".join(parts[:end]) + ".*"


def is_said(message: str, known: list[str]) -> bool:
    """Whether some text of the package makes this message, or begins with it (`...`)."""
    shown = message.replace("`", "")
    if shown.endswith("..."):
        return any(re.fullmatch(p, shown.removesuffix("...")) for p in beginnings(known))
    patterns = WHOLE if known is KNOWN else whole_patterns(known)
    return any(pattern.fullmatch(shown) for pattern in patterns)


KNOWN = templates()
WHOLE = whole_patterns(KNOWN)
MESSAGES = list(messages(PAGE))
COMPOSED = (
    "--config.train.num_step: ",
    "is being trained in by",
)  # of two texts: made in tests below


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_of_the_page_is_one_of_the_code(message: str) -> None:
    assert is_said(message, KNOWN) != any(words in message for words in COMPOSED)


def test_there_are_many_and_each_has_a_cause_and_something_to_do() -> None:
    assert len(MESSAGES) > 40 and len(set(MESSAGES)) == len(MESSAGES)
    for row in re.findall(r"^\| `.* \|$", PAGE, re.M):
        cells = re.split(r"(?<!\\) \| ", row.strip("| "))
        assert len(cells) == 3 and all(len(cell) > 3 for cell in cells), row


def python_texts() -> str:
    """Texts of jax's modules, with strings that were cut into pieces joined again."""
    folder = Path(jax.__file__).parent / "_src"
    paths = [*folder.glob("*.py"), folder / "interpreters" / "mlir.py"]
    texts = (path.read_text().replace("'", '"') for path in paths)
    return "".join(re.sub(r'"\s*\n\s*f?"', "", text) for text in texts)


def is_in(path: Path, words: str) -> bool:
    """Whether a compiled library holds these words."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return text.find(words.encode()) >= 0


def test_lines_of_libraries_are_theirs() -> None:
    """In the texts of the versions at hand; parts that vary stand for themselves."""
    known = [line for line in lines_of_libraries() if "RESOURCE_EXHAUSTED" not in line[1]]
    assert len(known) >= 12
    python = python_texts()
    jaxlib_file = Path(jaxlib.__file__).with_name("libjax_common.so")
    for whose, line in known:
        fixed = max((part.strip() for part in re.split(VARIES, line)), key=len).replace("'", '"')
        assert len(fixed) >= 12, line
        if whose == "libtpu":
            libtpu = pytest.importorskip("libtpu")
            assert is_in(Path(libtpu.__file__).with_name("libtpu.so"), fixed), line
        else:
            is_there = fixed in python if whose == "jax" else is_in(jaxlib_file, fixed)
            assert is_there, f"{whose} does not say {fixed!r}"


def test_what_nobody_says_is_seen() -> None:
    for message in (
        "train.batch_size=7 must be a multiple of two",
        "WEIGHTS is no folder of weight",
        "x is not a run folder",
        "it does not work",
    ):
        assert not is_said(message, ["{} is no folder of weights", "{} is not a run folder: {} x"])


def row_of(words: str) -> str:
    """Return the one message of the page that holds these words."""
    (message,) = (message for message in MESSAGES if words in message)
    return message.removesuffix("...").strip()


def test_messages_of_commands_appear_as_shown() -> None:
    for words, message in (
        (["--mode=doctor", "--workdir=w", "--labels=3"], row_of("no flag of --mode=doctor")),
        (["--config=flwo", "--workdir=w"], row_of("--config=flwo")),
        (["runs/flow"], row_of("'runs/flow' is no flag")),
        (["--workdir=w", "--config.train.num_steps=5"], row_of("--config.train.num_steps over")),
        (
            ["--config=configs/flow.py", "--workdir=w", "--config.train.num_step=5"],
            row_of("--config.train.num_step: "),
        ),
    ):
        with pytest.raises(ValueError) as error:
            command_line.parse(["main", *words])
        assert str(error.value).startswith(message)


def test_messages_of_values_and_folders_appear_as_shown(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("WEIGHTS/transformer").mkdir(parents=True)
    Path("runs/flo").mkdir(parents=True)
    Path("runs/notes.txt").touch()
    choices = ("nearest", "hungarian", "candidates", "none")
    for words, call in (
        ("neerest", lambda: check_choice("alignment.mode", "neerest", choices)),
        ("no .safetensors file", lambda: open_tensor_folder(Path("WEIGHTS/transformer"))),
        ("is not a run folder", lambda: run_config.load_config(Path("runs/flo"))),
    ):
        with pytest.raises(ValueError) as error:
            call()
        assert str(error.value) == row_of(words)


def test_a_second_trainer_is_told_as_shown(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with only_trainer(Path("runs/flow")), pytest.raises(ValueError) as error:
        with only_trainer(Path("runs/flow")):
            pass
    said = re.sub(r"process \d+ on \S+", "process 4711 on host", str(error.value))
    assert said == row_of("is being trained in by another process")
