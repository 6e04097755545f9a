"""What pyproject.toml cannot say: versions come from the requirements files, and only from them."""

import pathlib

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).resolve().parent


def requirements(name: str) -> list[str]:
    """Return the lines of a requirements file that are requirements."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return [line for line in lines if line and not line.startswith("-")]


def accelerated(kind: str) -> list[str]:
    """Return the requirement of jax with an accelerator's plugin, at the version of plain jax."""
    (jax,) = (line for line in requirements("requirements.txt") if line.startswith("jax>"))
    return [jax.replace("jax", f"jax[{kind}]", 1)]


def text_encoders() -> list[str]:
    """Return what reads text encoders: two of the tests' requirements."""
    wanted = ("torch", "transformers")
    return [line for line in requirements("requirements-test.txt") if line.startswith(wanted)]


setup(
    packages=[*find_packages(include=["tpdiff_jax*"]), "tpdiff_jax.configs"],
    install_requires=requirements("requirements.txt"),
    extras_require={
        "tpu": accelerated("tpu"),
        "cuda": accelerated("cuda12"),
        "text": [line.replace("==", ">=") for line in text_encoders()],
        "wandb": [line for line in requirements("requirements-test.txt") if "wandb" in line],
        "test": requirements("requirements-test.txt"),
    },
)
