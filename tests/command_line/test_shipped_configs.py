"""Configs by name from any folder, and the package as pip installs it."""

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

from tests.tiny import REPO
from tpdiff_jax import main
from tpdiff_jax.command_line import parse
from tpdiff_jax.command_line.shipped_configs import config_names, find_config

PLAN = ["main", "--mode=plan", "--workdir=out"]


def in_python(code: str, folder: pathlib.Path, *paths: pathlib.Path) -> str:
    """Run code with the package on its path, in a folder of its own."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout


@pytest.mark.parametrize("form", [["--config=ddim"], ["--config", "ddim"], ["-config=ddim"]])
def test_a_shipped_config_is_found_by_its_name(form: list[str], monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    config = parse([*PLAN, *form, "--config.train.num_steps=7"]).values["config"]
    assert (config.path.name, config.train.num_steps) == ("ddim", 7)


@pytest.mark.parametrize("wrong", ["flwo", "../configs/flow", "__init__", "configs.flow", ""])
def test_an_unknown_name_is_told_which_there_are(wrong: str, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"--config={wrong} is not a file, nor .* ddim, .*flow"):
        find_config(wrong)


@pytest.mark.parametrize("wrong", ["configs/flow.py", "flow.py"])
def test_a_path_of_the_checkout_outside_of_it_is_told_the_name(
    wrong: str, monkeypatch, tmp_path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"={wrong} is not a file; .* --config=flow is"):
        find_config(wrong)


@pytest.mark.parametrize("wrong", ["trian", "Train", "", "flow"])
def test_a_misspelled_mode_of_the_installed_command_is_told_the_modes(
    wrong: str, monkeypatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["tpdiff_jax", wrong, "--workdir=w"])
    monkeypatch.setattr(main, "run", lambda: parse(sys.argv))
    with pytest.raises(ValueError, match=f"^--mode is '{wrong}'; allowed: 'train', 'sample'"):
        main.run_command()


def test_every_config_of_the_checkout_is_named() -> None:
    files = {path.stem for path in (REPO / "configs").glob("*.py")} - {"__init__"}
    assert set(config_names()) == files


def test_configs_import_each_other_beside_a_foreign_package(tmp_path) -> None:
    """A shipped config gets ours, a file gets what its folder has; without a rival, ours too."""
    code = (
        "from tpdiff_jax.command_line import parse\n"
        "for name in ('mine.py', 'ddim', 'mine.py'):\n"
        "    command = parse(['main', '--mode=plan', '--workdir=o', '--config', name])\n"
        "    config = command.values['config']\n"
        "    print(config.path.name, len(config) > 5)\n"
    )
    rival, alone = tmp_path / "rival", tmp_path / "alone"
    for folder in (rival, alone):
        folder.mkdir()
        (folder / "mine.py").write_text("from configs import flow\nget_config = flow.get_config\n")
    (rival / "configs").mkdir()
    (rival / "configs" / "__init__.py").write_text("")
    (rival / "configs" / "flow.py").write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config():\n    return ConfigDict({'path': {'name': 'theirs'}})\n"
    )
    site = tmp_path / "site"  # the package without the configs beside it, as pip installs it
    site.mkdir()
    (site / "tpdiff_jax").symlink_to(REPO / "tpdiff_jax")
    ours = ["flow True", "ddim True", "flow True"]
    assert in_python(code, alone, site).splitlines() == ours
    assert in_python(code, rival, site).splitlines()[:2] == ["theirs False", "ddim True"]


def test_main_runs_as_a_file() -> None:
    """`types.py` beside it must not stand for the standard library's."""
    result = subprocess.run(
        [sys.executable, str(REPO / "tpdiff_jax" / "main.py"), "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0 and "Exit codes" in result.stdout


@pytest.mark.slow
def test_the_wheel_holds_what_a_run_reads(tmp_path) -> None:
    """Built without the network; its requirements are those of the file, its command is there."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "configs", "tpdiff_jax"):
        (source / name).symlink_to(REPO / name)
    for path in REPO.glob("requirements*.txt"):
        (source / path.name).symlink_to(path)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "-w", str(tmp_path), str(source)], check=True, timeout=300)
    (wheel,) = tmp_path.glob("tpdiff_jax-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (n for n in names if n.endswith("METADATA"))
        facts = archive.read(metadata).decode()
        (entry,) = (n for n in names if n.endswith("entry_points.txt"))
        assert "tpdiff_jax = tpdiff_jax.main:run_command" in archive.read(entry).decode()
    kept = {str(p.relative_to(REPO)) for p in (REPO / "tpdiff_jax").rglob("*") if p.is_file()}
    wanted = {path for path in kept if "__pycache__" not in path}
    assert wanted <= set(names)
    assert {f"tpdiff_jax/configs/{name}.py" for name in config_names()} <= set(names)
    lines = (REPO / "requirements.txt").read_text().splitlines()
    for line in (line for line in lines if line and not line.startswith("#")):
        assert f"Requires-Dist: {line.replace(' ', '')}" in facts.replace(" >", ">")
    for extra in ("bucket", "cuda", "docs", "ray", "test", "text", "tpu", "wandb"):
        assert f"Provides-Extra: {extra}" in facts
    for extra in ("bucket", "docs", "ray"):
        included = (REPO / f"requirements-{extra}.txt").read_text().splitlines()
        for line in (line for line in included if not line.startswith("#")):
            for wanted_by in (extra, "test"):
                assert f'Requires-Dist: {line}; extra == "{wanted_by}"' in facts
    assert 'Requires-Dist: ray[default]>=2.60; extra == "ray"' in facts
