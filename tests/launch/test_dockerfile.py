"""The image for CPUs, NVIDIA GPUs and TPUs: what it installs, by its own shell line."""

import os
import pathlib
import re
import subprocess

import pytest

from tests.tiny import REPO
from tpdiff_jax.command_line import parse

TEXT = (REPO / "launch" / "Dockerfile").read_text()
KNOWN = {"FROM", "ARG", "WORKDIR", "COPY", "RUN", "ENV"}


def instructions() -> list[tuple[str, str]]:
    """(word, rest) of every instruction; lines that end in a backslash go on."""
    lines = [line for line in TEXT.splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", "")
    pairs = [line.partition(" ") for line in joined.splitlines() if line.strip()]
    return [(word, rest.strip()) for word, _, rest in pairs]


def installed(tmp_path: pathlib.Path, accelerator: str) -> subprocess.CompletedProcess[str]:
    """Run the image's RUN line with a pip that only says what it was asked for."""
    (line,) = (rest for word, rest in instructions() if word == "RUN")
    pip = tmp_path / "pip"
    pip.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    pip.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "ACCELERATOR": accelerator,
    }
    return subprocess.run(
        ["sh", "-c", line], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("accelerator", "jax"), [("cpu", "jax"), ("cuda12", "jax[cuda12]"), ("tpu", "jax[tpu]")]
)
def test_each_kind_of_machine_gets_its_jax(
    accelerator: str, jax: str, tmp_path: pathlib.Path
) -> None:
    out = installed(tmp_path, accelerator)
    assert out.returncode == 0, out.stderr
    assert out.stdout.split("\n")[:-1] == [
        *("install", "--no-cache-dir", "-r", "requirements.txt"),
        jax,
    ]
    if accelerator != "cpu":
        assert f'accelerated("{accelerator}")' in (REPO / "setup.py").read_text()


@pytest.mark.parametrize("accelerator", ["", "gpu", "cuda", "TPU", "cpu; true", "tpu cpu"])
def test_another_kind_stops_the_build_with_those_that_there_are(
    accelerator: str, tmp_path: pathlib.Path
) -> None:
    out = installed(tmp_path, accelerator)
    assert out.returncode == 2 and out.stdout == ""
    assert f"ACCELERATOR is '{accelerator}'; allowed: cpu, cuda12, tpu" in out.stderr


def test_every_instruction_is_known_and_what_is_copied_is_there() -> None:
    found = instructions()
    assert {word for word, _ in found} <= KNOWN
    words = [word for word, _ in found]
    assert words[0] == "FROM" and words.index("ARG") > 0, "an ARG before FROM is not seen after it"
    assert dict(found)["ARG"] == "ACCELERATOR=tpu", "what launch/gke.py runs needs no argument"
    for word, rest in found:
        if word == "COPY":
            assert (REPO / rest.split()[0]).exists(), rest
    version = re.fullmatch(r"python:(3\.\d+)-slim", dict(found)["FROM"])
    assert version and version[1] in ("3.11", "3.12", "3.13")


def test_the_commands_of_its_head_are_right() -> None:
    head = re.sub(r"\\\n#\s*", "", TEXT[: TEXT.index("FROM")])
    builds = re.findall(r"docker build .*? \.", head)
    assert len(builds) == 3 and all("--file launch/Dockerfile" in line for line in builds)
    told = {m[1] for line in builds if (m := re.search(r"--build-arg ACCELERATOR=(\w+)", line))}
    assert told == {"cuda12", "cpu"}
    (run,) = re.findall(r"python -m tpdiff_jax\.main (.*)", head)
    mode, *words = run.split()
    assert parse(["tpdiff_jax", f"--mode={mode}", *words]).values["config"].train.num_steps > 0


def test_pages_name_the_kinds_of_jax_that_the_image_and_the_package_install() -> None:
    """The README's and the pages' lines, the head of the requirements, the extras, the image."""
    (run,) = (rest for word, rest in instructions() if word == "RUN")
    (kinds,) = re.findall(r"(\S+)\) jax=\"jax\[", run)
    image = {f"jax[{kind}]" for kind in kinds.split("|")}
    texts = [path.read_text() for path in (REPO / "docs").glob("*.md")]
    texts += [(REPO / name).read_text() for name in ("README.md", "requirements.txt")]
    installs = [found for text in texts for found in re.findall(r"pip install[^`#\n]*", text)]
    named = {kind for line in installs for kind in re.findall(r"jax\[\w+\]", line)}
    assert named == image
    extras = set(re.findall(r'accelerated\("(\w+)"\)', (REPO / "setup.py").read_text()))
    assert {f"jax[{kind}]" for kind in extras} == image
    # One file of requirements everywhere, and jax beside it in one command: one version of both.
    assert "-r requirements.txt" in run and run.count("pip install") == 1
    assert any("-r requirements.txt" in line for line in installs)


def test_nothing_that_linters_of_such_files_warn_of() -> None:
    """No root of the file system as the working folder, no newest image, no caches kept."""
    found = dict(instructions())
    assert found["WORKDIR"].startswith("/") and found["WORKDIR"] != "/"
    assert ":" in found["FROM"] and not found["FROM"].endswith(":latest")
    assert "--no-cache-dir" in found["RUN"] and "sudo" not in TEXT and "ADD " not in TEXT
    order = [rest.split()[0] for word, rest in instructions() if word == "COPY"]
    assert order[0] == "requirements.txt", "a change of code must not install everything again"
