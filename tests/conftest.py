"""Test settings that must hold before jax is imported: CPU, one device, programs compiled once.

Tests that need several devices start a subprocess with
`XLA_FLAGS=--xla_force_host_platform_device_count=N`: the count is fixed once jax has started, and
forcing it here would make every other test pay for it and hide single-device bugs.
"""

import gc
import importlib.metadata
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.blank_charts import is_drawn, leave_charts_blank
from tests.memory_maps import drop_programs, map_limit
from tests.programs_folder import KEPT, close_programs, open_programs

# Compile time dominates these tests. LLVM's optimiser more than doubles it and changes no claim;
# the newer emitter of fused loops, the only one of later jaxlibs, triples it again. Without it, a
# sixth is spent on cutting a program into parts that threads compile.
flags = "--xla_backend_optimization_level=0"
if importlib.metadata.version("jaxlib").startswith("0.10."):
    flags += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ.setdefault("XLA_FLAGS", flags)

os.environ["JAX_PLATFORMS"] = "cpu"

gc.disable()  # until all is imported, of which nothing goes away

# One thread for the PyTorch of references: its threads wait by spinning, on cores that others need.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# One folder of compiled programs for this test run: workers of pytest-xdist and all commands that
# tests start inherit it, and what one has compiled, others read. `compiled_anew` opts out.
is_worker = "PYTEST_XDIST_WORKER" in os.environ
programs = os.environ["JAX_COMPILATION_CACHE_DIR"] if is_worker else open_programs(os.environ)


def pytest_configure() -> None:
    """Remove what a killed run has left half written; JAX would keep it for ever."""
    if os.environ.get(KEPT) and not is_worker:
        from tpdiff_jax.devices.compilation_cache import remove_cut  # imports jax

        remove_cut(pathlib.Path(programs))


def pytest_unconfigure() -> None:
    """Remove the programs, in the process that made their folder."""
    if not is_worker:
        close_programs(programs, os.environ)


# Files with the longest tests, the longest first: what is left for the end is short.
LONGEST = (
    *("experiments/test_soak.py", "bench/test_pytorch.py", "models/test_text_training.py"),
    *("test_latent_run.py", "planning/test_networks_on_slices.py", "test_two_processes.py"),
    *("experiment/test_config_fuzz.py", "launch/test_sweep.py", "models/test_network_meshes.py"),
    *("test_validation_prompts.py", "test_meshes.py", "docs/test_quickstart.py"),
    *("test_adapted_training.py", "test_devices.py", "test_plan.py", "test_switches.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests; the tests of a file stay together, for what they share."""
    folder = pathlib.Path(__file__).parent
    rank = {str(folder / name): place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(str(item.path), len(rank)))


def pytest_collection_finish() -> None:
    """Spare the garbage collector what stays to the end: modules, and the tests themselves.

    Tracing makes so many objects that Python's full collections, each of them through all that was
    ever imported or compiled, were a sixth and more of the time of tests that trace.
    """
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With -n, a worker that has nothing left takes half of what another has: no core waits."""
    if config.getoption("dist") != "load":  # which is what -n alone asks for
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


CACHE_SETTINGS = {
    "jax_compilation_cache_dir": programs,
    "jax_enable_compilation_cache": True,
    "jax_persistent_cache_min_compile_time_secs": 0.0,
}


def _set_cache(settings: dict[str, object]) -> None:
    import jax
    from jax.experimental.compilation_cache.compilation_cache import reset_cache

    for name, value in settings.items():
        jax.config.update(name, value)
    reset_cache()  # JAX asks once whether there is one, and where


@pytest.fixture(autouse=True)
def programs_stay() -> Iterator[None]:
    """Undo what a command that a test runs in this process says of compiled programs."""
    yield
    if "jax" in sys.modules:
        values = sys.modules["jax"].config.values
        if any(values[name] != value for name, value in CACHE_SETTINGS.items()):
            _set_cache(CACHE_SETTINGS)


@pytest.fixture(autouse=True)
def float64_stays_off() -> Iterator[None]:
    """Fail a test that leaves float64 on, which would fail others, far away."""
    yield
    if "jax" in sys.modules:
        left = sys.modules["jax"].config.values["jax_enable_x64"]
        assert not left, "this test leaves jax_enable_x64 on"


@pytest.fixture(scope="module", autouse=True)
def few_maps() -> Iterator[None]:
    """After each file of tests, drop compiled programs if they fill too many memory maps."""
    yield
    drop_programs(map_limit())


@pytest.fixture(scope="module", autouse=True)
def blank_charts(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave drawings out of the reports of tests that do not look at them."""
    with pytest.MonkeyPatch.context() as patch:
        if not is_drawn(request.path):
            leave_charts_blank(patch)
        yield


@pytest.fixture
def compiled_anew(programs_stay: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read no compiled program from disk and write none, here and in commands that a test starts.

    For tests of the cache itself, of times to compile, and of what is read from a compiler's own
    output: programs that come from disk have lost a part of their text.
    """
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "false")
    _set_cache({"jax_compilation_cache_dir": None, "jax_enable_compilation_cache": False})


@pytest.fixture
def compiled_in_haste(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the TPU compiler take the least effort, here and in commands that a test starts.

    Half of the time or less. Programs need more memory and run for longer: what fits so, fits. No
    test of a refusal that means to be about the program should use it.
    """
    import jax

    names = ("jax_optimization_level", "jax_memory_fitting_level")
    before = {name: jax.config.values[name] for name in names}
    for name in names:
        monkeypatch.setenv(name.upper(), "O0")
        jax.config.update(name, "O0")
    yield
    for name, level in before.items():
        jax.config.update(name, level)


@pytest.fixture(scope="session")
def small_clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """A folder of clips of every kind, made once for all tests that only read them."""
    from tests.small_clips import KINDS, prepare_clips  # imports jax

    root = tmp_path_factory.mktemp("small_clips")
    return {kind: prepare_clips(root / kind, kind) for kind in (*KINDS, "buckets")}
