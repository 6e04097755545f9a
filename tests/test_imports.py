"""Imports point down only, and the method stands alone.

The tables below are the structure of the package. A new module must be given its place here; an
import that points up, sideways or in a circle fails.
"""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "tpdiff_jax"

# A member of a layer may import any layer above it in this list, nothing beside or below it.
LAYERS = (
    {"types", "checks"},
    {"files", "command_line"},
    {"method", "weights", "devices", "clips", "run_folder", "planning"},
    {"models", "preparation", "evals", "optim", "advice"},
    {"encoders", "digits", "run_log"},
    {"data", "train_state", "report"},
    {"train_step"},
    {"measures", "prepare"},
    {"experiment"},
    {"training", "results"},
    {"generation"},
    {"sample", "export", "evaluate", "doctor", "plan", "advise", "replay"},
    {"milestones"},
    {"train"},
    {"main"},
)
# What the layers alone would allow too much of.
ONLY = {
    "method": {"types", "checks"},
    "planning": {"types"},
    "models": {"types", "checks", "files", "weights"},
    "preparation": {"checks", "files", "clips"},
    "evals": {"types", "checks", "files", "weights", "command_line.exit_codes"},
    "optim": {"types", "checks"},
    "advice": {"types", "checks", "method"},
    "digits": {"types", "files", "evals"},
    "run_log": {"types", "checks", "files", "optim.guard"},
    "data": {"types", "checks", "files", "clips", "preparation", "digits"},
    "train_state": {"types", "method", "optim"},
    "train_step": {"types", "method", "optim", "train_state"},
    "report": {"files", "run_log"},
    "prepare": {"files", "clips", "preparation", "run_log"},
    "command_line": {"checks"},
}
METHOD_LAYERS = (
    {"scales", "guidance", "pairing", "time_sampling"},
    {"ddim_path", "axis_matrices"},
    {"paths"},
    {"resampling"},
    {"pyramid", "strides"},
    {"stages", "stage_line", "stage_transition", "losses"},
    {"stage_targets", "noise_alignment", "solver_coefficients"},
    {"sampler_spec"},
    {"time_grids"},
    {"samplers"},
)
METHOD_LIBRARIES = {"jax", "numpy", "optax", "chex"}
CONFIG_READERS = {"experiment", "run_folder", "generation", "command_line", "plan", "advise"}
MAX_LOOSE_MODULES = 16


def _module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module_name(path): path for path in sorted((ROOT / PACKAGE).rglob("*.py"))}


def imports_of(source):
    """Every module that a source text imports, wherever in the text; names inside modules too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide which arrow they are"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def resolved(name):
    """The module of the package that an imported name lives in."""
    while name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def arrows():
    """(importing module, imported module) inside the package."""
    for name, path in MODULES.items():
        for target in imports_of(path.read_text()):
            if target.split(".")[0] == PACKAGE and resolved(target) != name:
                yield name, resolved(target)


def part(module):
    """The first name below the package: `method` for tpdiff_jax.method.stages."""
    return (module.split(".") + [""])[1]


def violations(pairs):
    rank = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    wrong = []
    for source, target in pairs:
        a, b = part(source), part(target)
        if a == b or not a or not b:  # inside one package, or the package's own facts
            continue
        if a in ONLY:
            path = target.removeprefix(PACKAGE + ".")
            is_allowed = any(path == name or path.startswith(name + ".") for name in ONLY[a])
        else:
            is_allowed = rank[b] < rank[a]
        if not is_allowed:
            wrong.append(f"{source} -> {target}")
    return sorted(wrong)


def test_every_module_has_its_place():
    known = set().union(*LAYERS)
    assert {part(name) for name in MODULES} - {""} <= known
    assert not [name for name in MODULES if "utils" in name.split(".")[-1]]


def test_contributing_shows_these_layers():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    block = text[text.index("    types, checks\n") :].split("\n\n")[0]
    assert tuple(set(line.strip(" <").split(", ")) for line in block.splitlines()) == LAYERS


def test_imports_point_down_only():
    assert violations(arrows()) == []


@pytest.mark.parametrize(
    "source, target",
    [
        ("method.stages", "models.video_dit"),
        ("models.video_dit", "method"),
        ("evals.frechet", "data.pipeline"),
        ("data.pipeline", "evals.frechet"),
        ("devices.mesh", "experiment.build"),
        ("devices.mesh", "run_log.sinks"),
        ("run_log.run_log", "cost"),
        ("train_step", "devices.mesh"),
        ("sample", "train"),
        ("experiment.build", "main"),
        ("types", "method"),
    ],
)
def test_the_rule_sees_a_wrong_arrow(source, target):
    assert violations([(f"{PACKAGE}.{source}", f"{PACKAGE}.{target}")])


def test_the_rule_sees_imports_inside_functions_and_of_names():
    source = "def f():\n    from tpdiff_jax.models import Network\n    import jax.numpy as jnp\n"
    assert imports_of(source) == {"tpdiff_jax.models.Network", "jax.numpy"}
    assert resolved("tpdiff_jax.types.Array") == "tpdiff_jax.types"


def test_no_import_circles():
    """Between files, not only between packages; a package's `__init__` is one of its files."""
    graph = {name: set() for name in MODULES}
    for source, target in arrows():
        if not source.startswith(target + "."):  # a file inside a package may name the package
            graph[source].add(target)
    graphlib.TopologicalSorter(graph).prepare()


def test_the_method_has_its_inner_arrows_only():
    rank = {name: i for i, layer in enumerate(METHOD_LAYERS) for name in layer}
    inner = f"{PACKAGE}.method."
    wrong = []
    for source, target in arrows():
        if source.startswith(inner) and target.startswith(f"{PACKAGE}.method"):
            a, b = source.removeprefix(inner), target.removeprefix(inner)
            if b not in rank or rank[b] >= rank[a]:
                wrong.append(f"{source} -> {target}")
    assert wrong == []
    files = {n.removeprefix(inner) for n in MODULES if n.startswith(inner)}
    assert files <= set(rank)


def test_the_method_needs_only_jax_numpy_optax_and_chex():
    allowed = METHOD_LIBRARIES | set(sys.stdlib_module_names) | {PACKAGE}
    wrong = {
        f"{name} -> {target}"
        for name, path in MODULES.items()
        if part(name) in ("method", "types", "checks")
        for target in imports_of(path.read_text())
        if target.split(".")[0] not in allowed
    }
    assert wrong == set()


def test_importing_the_method_loads_no_other_part():
    code = (
        "import sys, tpdiff_jax.method\n"
        "print([m for m in sys.modules if m.split('.')[0] in"
        " ('flax', 'orbax', 'grain', 'clu', 'ml_collections', 'av', 'PIL', 'sklearn',"
        " 'tensorboard')"
        " or m.startswith('tpdiff_jax.') and m.split('.')[1] not in ('method', 'types', 'checks')])"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def test_only_the_config_readers_see_a_config_dict():
    readers = {
        part(name)
        for name, path in MODULES.items()
        if any(target.split(".")[0] == "ml_collections" for target in imports_of(path.read_text()))
    }
    assert readers <= CONFIG_READERS


def test_configs_import_configs_and_ml_collections_only():
    for path in (ROOT / "configs").rglob("*.py"):
        tops = {target.split(".")[0] for target in imports_of(path.read_text())}
        assert tops <= {"ml_collections", "configs"}, path.name


def test_few_modules_stand_loose_at_the_top():
    loose = [path.stem for path in (ROOT / PACKAGE).glob("*.py") if path.stem != "__init__"]
    assert len(loose) <= MAX_LOOSE_MODULES, sorted(loose)


def test_every_file_says_its_idea_first():
    for name, path in MODULES.items():
        assert ast.get_docstring(ast.parse(path.read_text())), name
