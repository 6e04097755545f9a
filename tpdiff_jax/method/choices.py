"""One check for every option that is a word from a short list, so that all errors read alike."""

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
