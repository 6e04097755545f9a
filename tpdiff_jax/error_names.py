"""Errors of the user's input that say where they are from."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def naming(what: str) -> Iterator[None]:
    """Put a name before the message of a ValueError; "" leaves it as it is."""
    try:
        yield
    except ValueError as error:
        if not what:
            raise
        raise ValueError(f"{what}: {error}") from error
