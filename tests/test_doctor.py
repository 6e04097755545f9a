"""The doctor: says what is intact, what is wrong and what would be resumed; changes nothing."""

import json
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from tests.tiny import REPO, tiny_config
from tpdiff_jax import doctor
from tpdiff_jax.files.json_files import write_json
from tpdiff_jax.run_folder import run_config
from tpdiff_jax.run_folder.checkpoint_manifest import (
    CheckpointError,
    CheckpointMismatchError,
    Identity,
    digest,
)
from tpdiff_jax.run_folder.checkpoints import Checkpoints

DATASET = {"version": "digits-1"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A workdir with steps 3 and 6; to be copied."""
    workdir = tmp_path_factory.mktemp("saved")
    config = tiny_config()
    run_config.save_config(workdir, config)
    identity = Identity(config=run_config.deciding_fields(config), dataset=DATASET)
    checkpoints = Checkpoints(workdir, identity=identity)
    for step in (3, 6):
        checkpoints.save(step, {"w": jnp.full(4, float(step))}, {})
    checkpoints.close()
    return workdir


@pytest.fixture
def workdir(saved: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    return shutil.copytree(saved, tmp_path / "run")


def content(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_intact_checkpoints_are_listed_with_what_they_belong_to(
    workdir: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(workdir)
    assert doctor.examine(workdir) == 6
    told = capsys.readouterr().out
    assert told.count("intact, format 2") == 2 and f"jax {jax.__version__}" in told
    assert "training would resume from step 6, the newest" in told
    assert content(workdir) == before


def test_damage_and_leftovers_are_named_and_the_step_before_is_proposed(
    workdir: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workdir / "checkpoints" / "6" / "_CHECKPOINT_METADATA").write_text("{}")
    (workdir / "checkpoints" / "9.saving").mkdir()
    assert doctor.examine(workdir) == 3
    told = capsys.readouterr().out
    assert "UNUSABLE: _CHECKPOINT_METADATA has 2 bytes instead of" in told
    assert "leftover 9.saving, 0 B: removed by the next start" in told
    assert "resume from step 3, because 6 cannot be used" in told
    assert (workdir / "checkpoints" / "9.saving").is_dir()


def test_nothing_intact_and_another_config_are_errors(workdir: pathlib.Path) -> None:
    other = tiny_config(optim__learning_rate=0.5)
    run_config.save_config(workdir, other)
    with pytest.raises(CheckpointError, match=r"optim\.learning_rate: saved 0\.001, now 0\.5"):
        doctor.examine(workdir)
    for step in ("3", "6"):
        (workdir / "checkpoints" / step / "manifest.json").write_text("{}")
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints"):
        doctor.examine(workdir)


def test_a_newer_checkpoint_of_another_format_is_not_walked_past(
    workdir: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = workdir / "checkpoints" / "6" / "manifest.json"
    body = json.loads(path.read_text())["manifest"] | {"format_version": 99}
    path.write_text(json.dumps({"manifest": body, "sha256": digest(body)}))
    with pytest.raises(CheckpointMismatchError, match="format 99"):
        doctor.examine(workdir)
    assert "UNUSABLE" in capsys.readouterr().out


def test_a_run_without_checkpoints_starts_and_a_complete_one_is_left(
    workdir: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_config.save_config(tmp_path, tiny_config())
    assert doctor.examine(tmp_path) == 0
    assert "training would start at step 0" in capsys.readouterr().out
    write_json(workdir / "results.json", {"counts": {"steps": 6}})
    assert doctor.examine(workdir) == 6
    assert "nothing is left to do" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"config\.json"):
        doctor.examine(tmp_path / "nowhere")


def test_a_checkpoint_without_manifest_counts_after_it_was_trusted(
    workdir: pathlib.Path,
) -> None:
    manifest = workdir / "checkpoints" / "6" / "manifest.json"
    with pytest.raises(CheckpointError, match="manifest.json exists"):
        doctor.trust(workdir, 6)
    with pytest.raises(CheckpointError, match="7 does not exist"):
        doctor.trust(workdir, 7)
    manifest.unlink()
    assert doctor.examine(workdir) == 3
    doctor.trust(workdir, 6)
    assert doctor.examine(workdir) == 6
    run = Identity(config=run_config.deciding_fields(tiny_config()), dataset=DATASET)
    restored = Checkpoints(workdir, identity=run, create=False).restore({"w": jnp.zeros(4)})
    assert restored is not None and restored.step == 6


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "0 B"), (1500, "1.5 kB"), (2.5e9, "2.5 GB"), (3e12, "3 TB")]
)
def test_sizes_are_readable(amount: float, text: str) -> None:
    assert doctor.format_bytes(amount) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (90.0, "1.5 min"), (7200.0, "2.0 h"), (86400.0, "1.0 d")]
)
def test_ages_are_readable(seconds: float, text: str) -> None:
    assert doctor.format_age(seconds) == text


@pytest.mark.slow
def test_the_command_needs_no_device_and_no_config_and_ends_with_2_when_nothing_is_intact(
    workdir: pathlib.Path,
) -> None:
    command = [sys.executable, "-m", "tpdiff_jax.main", "--mode=doctor", f"--workdir={workdir}"]

    def ask() -> subprocess.CompletedProcess[str]:
        # A platform that does not exist: touching a device would fail.
        return subprocess.run(
            command, cwd=REPO, env={"JAX_PLATFORMS": "nowhere"}, capture_output=True, text=True
        )

    out = ask()
    assert out.returncode == 0, out.stderr
    assert "training would resume from step 6" in out.stdout
    for path in workdir.glob("checkpoints/*/manifest.json"):
        path.unlink()
    out = ask()
    assert out.returncode == 2 and "none of the 2 checkpoints" in out.stderr
    assert "Traceback" not in out.stderr


@pytest.mark.parametrize("content", ["", '{"counts": ', "{}", "[]", '{"counts": null}'])
def test_damaged_results_are_not_complete_and_no_obstacle(
    workdir: pathlib.Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (workdir / "results.json").write_text(content)
    assert doctor.examine(workdir) == 6
    assert "results.json: not there yet" in capsys.readouterr().out
