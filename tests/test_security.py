"""Nothing in the package can run code from a file it reads, and nothing names one machine."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(
    path
    for folder in ("tpdiff_jax", "configs", "experiments", "bench", "launch")
    for path in (ROOT / folder).rglob("*.py")
)
TEXT_SUFFIXES = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".cff", ".sh", ".css", ".json", ""}
TEXTS = [
    path
    for folder in ("tpdiff_jax", "configs", "experiments", "bench", "launch", "docs", ".ci")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.is_file() and path.suffix in TEXT_SUFFIXES and "__pycache__" not in path.parts
]
TEXTS += [path for path in ROOT.iterdir() if path.is_file() and path.suffix in TEXT_SUFFIXES - {""}]

FORBIDDEN = {
    "pickle": r"\b(pickle|cPickle|cloudpickle|dill|marshal|shelve)\b",
    "eval(": r"(?<![\w.])eval\(",
    "exec(": r"(?<![\w.])exec\(",
    "yaml.load(": r"\byaml\.(unsafe_|full_)?load(_all)?\(",
    "allow_pickle=True": r"allow_pickle\s*=\s*True",
    "torch.load(": r"\btorch\.load\((?!.*weights_only=True)",  # else it runs code
    "joblib": r"\bjoblib\b",
    "a shell": r"shell\s*=\s*True|\bos\.(system|popen)\(",
    "extraction of archives": r"\.extractall\(",
}
MACHINE_PATH = re.compile(r"(?<![\w.$}/])/(work|home|root|Users|private|scratch)/|\b[A-Z]:\\\\?\w")


def _hits(pattern, text):
    return [line.strip() for line in text.splitlines() if re.search(pattern, line)]


@pytest.mark.parametrize("name", FORBIDDEN)
def test_the_package_does_without(name):
    found = {
        f"{path.relative_to(ROOT)}: {line}"
        for path in SOURCES
        for line in _hits(FORBIDDEN[name], path.read_text())
    }
    assert found == set()


def test_numpy_files_are_read_without_objects():
    """np.load must say allow_pickle=False, so that no later default can change it."""
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in _numpy_loads(path.read_text())
        if not _says_no_objects(node)
    ]
    assert wrong == []


def test_no_file_names_a_path_of_one_machine():
    found = {
        f"{path.relative_to(ROOT)}: {line}"
        for path in TEXTS
        for line in _hits(MACHINE_PATH, path.read_text(errors="replace"))
    }
    assert found == set()


@pytest.mark.parametrize(
    "name, line",
    [
        ("pickle", "import pickle"),
        ("pickle", "from cloudpickle import loads"),
        ("eval(", "x = eval(text)"),
        ("exec(", "exec(code)"),
        ("yaml.load(", "yaml.load(file)"),
        ("yaml.load(", "yaml.unsafe_load(file)"),
        ("allow_pickle=True", "np.load(path, allow_pickle = True)"),
        ("torch.load(", "state = torch.load(path)"),
        ("a shell", "subprocess.run(line, shell=True)"),
    ],
)
def test_the_patterns_see_what_they_look_for(name, line):
    assert _hits(FORBIDDEN[name], line)


@pytest.mark.parametrize(
    "line", ["jax.eval_shape(f)", "model.eval()", "np.load(p, allow_pickle=False)", "executor(x)"]
)
def test_the_patterns_leave_harmless_lines_alone(line):
    assert not [name for name in FORBIDDEN if _hits(FORBIDDEN[name], line)]


@pytest.mark.parametrize("line", ["cd /root/clone", "x = '/home/me/data'", r"C:\\data"])
def test_the_path_pattern_sees_machine_paths(line):
    assert _hits(MACHINE_PATH, line)


@pytest.mark.parametrize("line", ["workdir/work/x", "$HOME/home/x", "https://a.org/home/x"])
def test_the_path_pattern_leaves_relative_paths_alone(line):
    assert not _hits(MACHINE_PATH, line)


def test_the_numpy_rule_sees_a_bare_load():
    (bare, safe) = _numpy_loads("np.load(p)\nnumpy.load(p, allow_pickle=False)\njson.load(f)")
    assert not _says_no_objects(bare) and _says_no_objects(safe)


def _numpy_loads(source):
    return [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load")
    ]


def _says_no_objects(call):
    return any(
        keyword.arg == "allow_pickle" and ast.unparse(keyword.value) == "False"
        for keyword in call.keywords
    )
