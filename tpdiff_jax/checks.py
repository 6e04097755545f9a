"""Checks of what users write, in config fields and flags alike, with one wording for each kind.

    alignment.mode is 'closest'; allowed: 'none', 'nearest', 'hungarian'
    train.batch_size is 0; allowed: at least 1

Needs nothing but Python, so that everything, the method included, can use it.
"""

import contextlib
import difflib
import operator
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

# A scheme of two letters or more, so that a Windows drive is none; pathlib makes `gs:/` of `gs://`.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_BUCKET = re.compile(r"(gs|s3)://[^/]+(/[^/]+)+/?")


def check_choice(field: str, value: object, allowed: Iterable[object]) -> None:
    """Refuse a word that is not one of the allowed ones.

    Args:
        field: full config name, such as `pyramid.upsample`, or flag, such as `--mode`.
        value: what the user gave.
        allowed: the words that exist.

    Raises:
        ValueError: naming the field, the value and the allowed words.
    """
    if value not in (choices := tuple(allowed)):
        _refuse(field, value, ", ".join(map(repr, choices)))


def check_at_least(field: str, value: float, least: float) -> None:
    """Refuse a number below a bound, or NaN.

    Args:
        field: full config name or flag.
        value: what the user gave.
        least: smallest allowed value.

    Raises:
        ValueError: naming the field, the value and the bound.
    """
    if not _holds(operator.ge, value, least):
        _refuse(field, value, f"at least {least}")


def check_above(field: str, value: float, bound: float) -> None:
    """Refuse a number that does not lie above a bound, NaN included.

    Args:
        field: full config name or flag.
        value: what the user gave.
        bound: largest value that is not allowed.

    Raises:
        ValueError: naming the field, the value and the bound.
    """
    if not _holds(operator.gt, value, bound):
        _refuse(field, value, f"above {bound}")


def check_range(field: str, value: float, least: float, most: float, ends: str = "[]") -> None:
    """Refuse a number outside a range.

    Args:
        field: full config name or flag.
        value: what the user gave.
        least: lower end.
        most: upper end.
        ends: `[` or `(`, then `]` or `)`: whether each end itself is allowed.

    Raises:
        ValueError: naming the field, the value and the range; NaN lies in none.
    """
    is_above = _holds(operator.ge if ends[0] == "[" else operator.gt, value, least)
    is_below = _holds(operator.le if ends[1] == "]" else operator.lt, value, most)
    if not (is_above and is_below):
        _refuse(field, value, f"{ends[0]}{least}, {most}{ends[1]}")


def check_no_address(field: str, path: object) -> None:
    """Refuse a path that is the address of something elsewhere, such as `gs://bucket/run`.

    A local folder of that name would be made, and what is in it lost with the machine.

    Raises:
        ValueError: naming the field and the address.
    """
    if _ADDRESS.match(str(path)):
        raise ValueError(
            f"{field}={path} is an address, not a path: only mounted file systems are read and "
            "written (NFS such as Filestore, or a bucket mounted by gcsfuse)"
        )


def at_home(path: str) -> str:
    """Return a path with the user's folder in the place of a leading ~.

    Shells put it there in `--workdir ~/runs`, and not all of them in `--workdir=~/runs`.
    """
    return os.path.expanduser(path) if path.startswith("~") else path


def is_bucket_address(text: object) -> bool:
    """Whether a text is the address of a folder in a bucket, such as gs://bucket/run."""
    return _BUCKET.fullmatch(str(text)) is not None


def check_path_or_bucket(field: str, value: object) -> None:
    """Refuse an address other than that of a folder in a bucket.

    Args:
        field: full config name or flag.
        value: what the user gave.

    Raises:
        ValueError: naming the field, the address and the kinds that are allowed.
    """
    if _ADDRESS.match(str(value)) and not is_bucket_address(value):
        raise ValueError(
            f"{field}={value} is an address; allowed: a path, gs://BUCKET/FOLDER or "
            "s3://BUCKET/FOLDER"
        )


def whole_number(field: str, value: object, at_least: int = 1) -> int:
    """A number that counts something, as a plain int; numpy's whole numbers will do.

    Args:
        field: full config name, such as `alignment.group_size`.
        value: what the user gave.
        at_least: the smallest number allowed.

    Returns:
        The number.

    Raises:
        ValueError: naming the field and the value: not a whole number, or too small a one.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = at_least - 1
    if number < at_least or isinstance(value, bool):
        raise ValueError(f"{field} is {value!r}; allowed: whole numbers from {at_least}")
    return number


def as_tuple(field: str, value: object, of: str) -> tuple:
    """A list of options as a tuple, so that what holds it can be hashed.

    Args:
        field: full config name, such as `sample.steps_per_stage`.
        value: what the user gave: a tuple, a list or a numpy array of one axis.
        of: what it should hold, for the error: "one number for each stage".

    Returns:
        The same entries.

    Raises:
        ValueError: naming the field and the value: one number or a word in place of a list.
    """
    if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        raise ValueError(f"{field} is {value!r}; allowed: {of}")
    return tuple(value)


def first_line_of(error: BaseException) -> str:
    """Return the first line with words of what an error says; its name where it says nothing.

    Args:
        error: any.
    """
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


def counted(number: int, noun: str) -> str:
    """A number with what it counts: `1 video`, `3 videos`.

    Args:
        number: how many.
        noun: of one; its plural ends in s.
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def did_you_mean(name: str, known: Iterable[str], at_most: int = 3) -> str:
    """Return `; did you mean A, B?` with the names nearest to one that does not exist.

    Args:
        name: what the user wrote, such as `train.num_step`.
        known: the names that exist. Near is one that is written alike, or whose part behind the
            last dot is: `num_steps` is near `train.num_steps`.
        at_most: names shown, nearest first.

    Returns:
        The hint; "" where nothing is near.
    """
    last = name.rpartition(".")[2]
    likeness = {
        other: max(_likeness(name, other), 0.85 * _likeness(last, other.rpartition(".")[2]))
        for other in known
    }
    best = max(likeness.values(), default=0.0)
    near = [other for other, value in likeness.items() if value >= max(0.65, best - 0.04)]
    shown = sorted(near, key=lambda other: -likeness[other])[:at_most]
    return f"; did you mean {', '.join(shown)}?" if shown else ""


def _likeness(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b).ratio()


def _holds(compare: Callable[[Any, Any], Any], value: object, bound: float) -> bool:
    """Whether a comparison holds; none does of what is no number, such as text."""
    try:
        return bool(compare(value, bound))
    except TypeError:
        return False


def _refuse(field: str, value: object, allowed: str) -> None:
    raise ValueError(f"{field} is {value!r}; allowed: {allowed}")


@contextlib.contextmanager
def naming(what: str) -> Iterator[None]:
    """Put a name before the message of a ValueError; "" leaves it as it is."""
    try:
        yield
    except ValueError as error:
        if not what:
            raise
        raise ValueError(f"{what}: {error}") from error
