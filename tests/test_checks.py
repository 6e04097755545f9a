"""Every check says field, value and what is allowed, in one wording."""

import math
import subprocess
import sys

import pytest

from tests.tiny import REPO
from tpdiff_jax import checks, method
from tpdiff_jax.models import FluxConfig


def test_a_choice_is_one_of_the_words_or_refused_by_name() -> None:
    checks.check_choice("path.name", "flow", ("flow", "ddim"))
    checks.check_choice("path.name", "ddim", {"flow": 1, "ddim": 2})
    for word in ("Flow", "", None, 0):
        with pytest.raises(ValueError) as error:
            checks.check_choice("path.name", word, iter(("flow", "ddim")))
        assert str(error.value) == f"path.name is {word!r}; allowed: 'flow', 'ddim'"


@pytest.mark.parametrize(
    ("check", "bounds", "good", "bad", "allowed"),
    [
        (checks.check_at_least, (1,), (1, 7, math.inf), (0, -1, 0.9, math.nan), "at least 1"),
        (checks.check_above, (0,), (1e-9, 7, math.inf), (0, -0.0, -1, math.nan), "above 0"),
        (checks.check_range, (0, 1), (0, 0.5, 1), (-1e-9, 1.1, math.nan), "[0, 1]"),
        (checks.check_range, (0, 1, "[)"), (0, 0.5), (-1e-9, 1, math.nan), "[0, 1)"),
        (checks.check_range, (0, 1, "(]"), (0.5, 1), (0, 1.1, math.nan), "(0, 1]"),
        (checks.check_range, (0, math.inf, "()"), (0.5, 9), (0, math.inf, math.nan), "(0, inf)"),
    ],
)  # fmt: skip
def test_a_number_lies_within_its_bounds_or_is_refused_by_name(
    check, bounds, good, bad, allowed
) -> None:  # type: ignore[no-untyped-def]
    for value in good:
        check("train.x", value, *bounds)
    for value in bad:
        with pytest.raises(ValueError) as error:
            check("train.x", value, *bounds)
        assert str(error.value) == f"train.x is {value!r}; allowed: {allowed}"


@pytest.mark.parametrize(
    "address", ["gs://bucket/run", "s3://b", "gs:/bucket/run", "file:///run", "https://a.org/x"]
)
def test_an_address_is_no_path(address: str) -> None:
    with pytest.raises(ValueError, match=f"--out={address} is an address, not a path"):
        checks.check_no_address("--out", address)


@pytest.mark.parametrize(
    "path", ["runs/a", "/mnt/gs/run", "a:b", "C:/runs", "./gs://x", "", "runs/x:/y", "~/a"]
)
def test_a_path_is_no_address(path: str) -> None:
    checks.check_no_address("--out", path)


@pytest.mark.parametrize(
    ("text", "is_bucket"),
    [
        ("gs://bucket/run", True),
        ("s3://my.bucket/a/b-c/run_1/", True),
        ("gs://bucket", False),
        ("gs://bucket/", False),
        ("gs:///run", False),
        ("gs://bucket//run", False),
        ("gs:/bucket/run", False),
        ("GS://bucket/run", False),
        ("az://bucket/run", False),
        ("https://a.org/x", False),
        ("runs/gs://bucket/run", False),
        ("runs/a", False),
        ("", False),
    ],
)
def test_a_folder_in_a_bucket_is_known_by_its_address(text: str, is_bucket: bool) -> None:
    assert checks.is_bucket_address(text) == is_bucket
    is_path = "://" not in text.removeprefix("runs/gs://") and text != "gs:/bucket/run"
    if is_bucket or is_path:
        checks.check_path_or_bucket("--workdir", text)
    else:
        with pytest.raises(ValueError, match=f"^--workdir={text} is an address; allowed: a path, "):
            checks.check_path_or_bucket("--workdir", text)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("one\ntwo", "one"),
        (
            "\nT5Tokenizer requires the SentencePiece library\nmore\n",
            "T5Tokenizer requires the SentencePiece library",
        ),
        ("", "OSError"),
        (" \n", "OSError"),
    ],
)
def test_an_error_is_told_by_its_first_line_with_words(said: str, line: str) -> None:
    assert checks.first_line_of(OSError(said)) == line


def test_the_method_and_the_networks_use_the_same_check() -> None:
    assert method.check_choice is checks.check_choice
    with pytest.raises(ValueError, match=r"^model\.remat is 'yes'; allowed: 'none', "):
        FluxConfig(remat="yes")


def test_the_checks_need_nothing_but_python() -> None:
    code = "import sys, tpdiff_jax.checks; print('jax' in sys.modules or 'numpy' in sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert out.stdout == "False\n"
