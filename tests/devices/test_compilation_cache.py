"""Compiled programs are kept where the user's caches are, and change no bit of a run."""

import json
import os
import pathlib
import subprocess
import sys
import zlib
from collections.abc import Iterator

import jax
import pytest

from tests.tiny import REPO
from tpdiff_jax.devices import compilation_cache
from tpdiff_jax.devices.compilation_cache import (
    machine_name,
    open_compilation_cache,
    remove_cut,
    remove_oldest,
    user_cache_folder,
)

pytestmark = pytest.mark.usefixtures("compiled_anew")

NAMES = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
)


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test starts as a new process does, and leaves jax as it was."""
    before = {name: getattr(jax.config, name) for name in NAMES}
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_by_default_programs_lie_among_the_users_caches(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = open_compilation_cache(None)
    assert folder == tmp_path / "tpdiff_jax" / "compiled" / machine_name()
    assert folder.is_dir() and folder.stat().st_mode & 0o077 == 0, "what lies there is run"
    assert jax.config.jax_compilation_cache_dir == str(folder)
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 0.1


@pytest.mark.parametrize("told", ["", "relative/caches"])
def test_without_an_absolute_folder_of_caches_it_is_in_the_home(
    told: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", told)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache_folder() == tmp_path / ".cache" / "tpdiff_jax" / "compiled"


def test_what_the_user_says_goes_first(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert open_compilation_cache(str(tmp_path / "own")) == tmp_path / "own"
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own")
    assert open_compilation_cache(None) is None, "as with JAX_COMPILATION_CACHE_DIR"
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own")
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "7")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 7.0)
    open_compilation_cache("gs://bucket/programs")
    assert jax.config.jax_compilation_cache_dir == "gs://bucket/programs"
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 7.0
    open_compilation_cache("off")
    assert not jax.config.jax_enable_compilation_cache
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


def test_a_folder_that_cannot_be_made_stops_only_those_who_asked_for_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match=f"^--compilation_cache={tmp_path}/file/x cannot be made"):
        open_compilation_cache(f"{tmp_path}/file/x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with caplog.at_level("WARNING", logger="absl"):
        assert open_compilation_cache(None) is None
    assert "compiled programs are not kept" in caplog.text
    assert jax.config.jax_compilation_cache_dir is None


@pytest.mark.parametrize("off", ["off", "OFF", "Off"])
def test_off_in_any_case_keeps_nothing(
    off: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    jax.config.update("jax_enable_compilation_cache", True)
    assert open_compilation_cache(off) is None
    assert not jax.config.jax_enable_compilation_cache and not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", ["", " ", "none", "None", "False", "no", "0"])
def test_a_word_that_means_no_folder_makes_none(
    wrong: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"^--compilation_cache is {wrong!r}; allowed: a folder"):
        open_compilation_cache(wrong)
    assert not list(tmp_path.iterdir())
    assert open_compilation_cache("./none") == pathlib.Path("none"), "a folder may be called so"


def test_the_oldest_programs_go_when_there_are_too_many(tmp_path: pathlib.Path) -> None:
    for age, name in enumerate(["new", "older", "oldest"]):
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (1e9, 1e9 - age))
    remove_oldest(tmp_path, 300)
    assert len(list(tmp_path.iterdir())) == 3
    remove_oldest(tmp_path, 299)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "older"}
    remove_oldest(tmp_path, 0)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_run_has_written_in_part_is_compiled_and_kept_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code = (
        "import jax; from tpdiff_jax.devices.compilation_cache import open_compilation_cache as o;"
        "print(o(None)); jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0);"
        "print(float(jax.jit(lambda x: x * 2 + 1)(3.0)))"
    )
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "true"}

    def start() -> tuple[pathlib.Path, str]:
        command = [sys.executable, "-c", code]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        folder, value = ran.stdout.split()
        assert value == "7.0"
        return next(pathlib.Path(folder).glob("jit__lambda*-cache")), ran.stderr

    entry, _ = start()
    whole = entry.read_bytes()
    entry.write_bytes(whole[: len(whole) // 2])
    _, told = start()
    assert "Error reading" in told, "an entry this young may be another process's"
    os.utime(entry, (1e9, 1e9))
    os.utime(entry.parent / ".checked", (5e8, 5e8))
    _, told = start()
    assert "written in part" in told and entry.read_bytes() == whole
    _, told = start()
    assert not told


def test_only_entries_that_were_cut_go_and_each_is_looked_at_once(tmp_path: pathlib.Path) -> None:
    whole = zlib.compress(os.urandom(3 << 20))
    contents = {
        "whole-cache": whole,
        "cut-cache": whole[:-1],
        "late-cache": whole[: 2 << 20],
        "spoilt-cache": whole[:1000] + bytes(1000) + whole[2000:],
        "empty-cache": b"",
        "zstd-cache": b"\x28\xb5\x2f\xfd\x00",
        "notes.txt": b"x",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        os.utime(tmp_path / name, (1e9, 1e9))
    cut = ["cut-cache", "empty-cache", "late-cache", "spoilt-cache"]
    assert remove_cut(tmp_path) == cut
    assert {path.name for path in tmp_path.iterdir()} - {".checked"} == contents.keys() - set(cut)
    (tmp_path / "old-cache").write_bytes(whole[:-1])
    os.utime(tmp_path / "old-cache", (1e9, 1e9))
    (tmp_path / "young-cache").write_bytes(whole[:-1])
    assert remove_cut(tmp_path) == []


def test_machines_with_other_instructions_or_cores_have_other_folders(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = tmp_path / "cpuinfo"
    monkeypatch.setattr(compilation_cache, "_CPU_FACTS", facts)
    names = []
    for cores, told in (("2", "avx2"), ("4", "avx2"), ("4", "avx2 avx512f")):
        monkeypatch.setenv("NPROC", cores)
        facts.write_text(f"processor: 0\nflags\t\t: {told}\ncpu MHz\t\t: {len(names)}\n" * 2)
        names.append(machine_name())
        facts.write_text(facts.read_text().replace("MHz\t\t: ", "MHz\t\t: 1"))
        assert machine_name() == names[-1], "the clock changes all the time"
    assert len(set(names)) == 3 and "-2-cores-" in names[0] and "-4-cores-" in names[1]


RESUMED = """\
import json, pathlib, sys
import jax, numpy as np
from jax.experimental.compilation_cache.compilation_cache import reset_cache
from tests.tiny import tiny_config
from tpdiff_jax import train
from tpdiff_jax.devices.compilation_cache import open_compilation_cache
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.run_folder.checkpoints import Checkpoints
from tpdiff_jax.training.initial_state import abstract_train_state

root, found = pathlib.Path(sys.argv[1]), {"hits": [], "writes": []}
events = []
def count(name, **_):  # called by several threads at once
    if name == "/jax/compilation_cache/cache_hits":
        events.append(name)
jax.monitoring.register_event_listener(count)
train.Milestones.finish = lambda *_: True  # the figures are another program
config = tiny_config(model__attention="factorised")

def session(workdir, steps):
    jax.clear_caches()
    config.train.num_steps = steps
    config.optim.schedule_steps = 6
    train.train(build_experiment(config), workdir)
    found["hits"].append(len(events))

jax.config.update("jax_enable_compilation_cache", False)
session(root / "undisturbed", 6)
jax.config.update("jax_enable_compilation_cache", True)
reset_cache()  # JAX asks once whether there is one
cache = open_compilation_cache(str(root / "cache"))
session(root / "resumed", 3)
for path in list(cache.glob("*"))[:1]:
    path.write_bytes(path.read_bytes()[:100])  # cut by a full disk: compiled anew
session(root / "resumed", 6)

def params(name):
    state = abstract_train_state(build_experiment(config))
    restored = Checkpoints(root / name, create=False).restore(state)
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(restored.state)]
found["is_equal"] = params("undisturbed") == params("resumed")
print("FOUND", json.dumps(found))
"""


@pytest.mark.slow
def test_a_run_resumed_with_kept_programs_has_the_bits_of_one_without_any(
    tmp_path: pathlib.Path,
) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "JAX_ENABLE_COMPILATION_CACHE"}
    out = subprocess.run(
        [sys.executable, "-c", RESUMED, str(tmp_path)],
        cwd=REPO,
        env={**environment, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "FOUND" in out.stdout, out.stderr[-3000:]
    found = json.loads(out.stdout.partition("FOUND")[2])
    without, first, second = found["hits"]
    assert without == first == 0 and second >= 2 and found["is_equal"]
