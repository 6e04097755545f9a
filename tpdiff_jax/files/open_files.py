"""Many files open at once: the system's limit, raised where that is allowed and told where it ends.

Readers of shards keep every file open that they have touched. A shard that cannot be opened for
want of room is not damaged, whichever library words the error.
"""

import contextlib
import errno
import os
import resource
from collections.abc import Iterator

_LIMIT_ERRORS = (errno.EMFILE, errno.ENFILE)  # of this process, of the whole system


class OpenFilesError(OSError):
    """So many files are open that another cannot be."""

    def __str__(self) -> str:
        return str(self.args[-1])


def allow_many_open_files() -> None:
    """Raise this process's limit to what the system lets it have, where it lets it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextlib.contextmanager
def naming_open_files(what: str) -> Iterator[None]:
    """Turn the limit of open files, where it is met inside, into one line.

    Args:
        what: which files are many, and what makes fewer of them.

    Raises:
        OpenFilesError: naming them and the limit.
    """
    try:
        yield
    except Exception as error:  # of many types: ArrayRecord's, the system's
        if not is_limit_error(error):
            raise
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        text = f"too many open files: {what}; this process may have {limit} (ulimit -n)"
        raise OpenFilesError(errno.EMFILE, text) from error


def is_limit_error(error: BaseException) -> bool:
    """Whether an error says that too many files are open, in whatever words."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _LIMIT_ERRORS
    return any(os.strerror(number) in str(error) for number in _LIMIT_ERRORS)
