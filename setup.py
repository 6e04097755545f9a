"""What pyproject.toml cannot say: versions come from the requirements files, and only from them."""

import pathlib

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).resolve().parent


# What the file of tests includes.
OF_TESTS = ("requirements-bucket.txt", "requirements-ray.txt", "requirements-docs.txt")


def requirements(*names: str) -> list[str]:
    """Return the lines of requirements files that are requirements."""
    text = "\n".join((ROOT / name).read_text() for name in names)
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
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
        "bucket": requirements("requirements-bucket.txt"),
        "ray": requirements("requirements-ray.txt"),
        "docs": requirements("requirements-docs.txt"),
        "tpu": accelerated("tpu"),
        "cuda": accelerated("cuda12"),
        "text": [line.replace("==", ">=") for line in text_encoders()],
        "wandb": [line for line in requirements("requirements-test.txt") if "wandb" in line],
        "test": requirements("requirements-test.txt", *OF_TESTS),
    },
)
