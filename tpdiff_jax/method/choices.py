"""The checks that several options share, so that all their errors read alike."""

import operator
from collections.abc import Sequence


def check_choice(field: str, value: object, allowed: Sequence[str]) -> None:
    """Refuse a word that is not one of the allowed ones.

    Args:
        field: full config name, such as `pyramid.upsample`.
        value: what the user gave.
        allowed: the words that exist.

    Raises:
        ValueError: naming the field, the value and the allowed words.
    """
    if value not in allowed:
        words = ", ".join(repr(word) for word in allowed)
        raise ValueError(f"{field} is {value!r}; allowed: {words}")


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
