"""Names that a command line may hand to a cluster, checked before any verb uses them.

A name that begins with a hyphen would be an option of kubectl or gcloud (`--name=--all` deletes
everything), one with a slash or dots would leave the folder of jobs on the workers.
"""

import re

from tpdiff_jax.checks import check_at_least, check_range

MAX_POLL_SECONDS = 86400

# Names of TPU slices and of Kubernetes objects are labels of RFC 1035, at most 63 characters, and
# JobSet appends up to 23 of its own to those of pods.
_JOB = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_PLACE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.:/@,]{0,251}[A-Za-z0-9])?")
_OPTION = re.compile(r"--?[A-Za-z][^\x00-\x1f\x7f]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def check_job_name(name: str) -> None:
    """Refuse a name that one of the clusters does not take, or takes for something else.

    Raises:
        ValueError: naming the option, the name and what is allowed.
    """
    if not _JOB.fullmatch(name):
        raise ValueError(
            f"--name={name!r} must be lower-case letters, digits and hyphens, begin with "
            "a letter, end with no hyphen and have at most 40 characters"
        )


def check_label(option: str, name: str | None, what: str) -> None:
    """Refuse what Kubernetes takes for no name, such as that of a namespace; None is no name.

    Args:
        option: as on the command line, such as `--namespace`.
        name: its value.
        what: what it names.

    Raises:
        ValueError: naming the option, the name and what is allowed.
    """
    if name is not None and not _LABEL.fullmatch(name):
        raise ValueError(
            f"{option}={name} is not the name of {what}: lower-case letters, digits and hyphens, "
            "no hyphen at the ends, at most 63 characters"
        )


def check_place(option: str, name: str | None) -> None:
    """Refuse what names no zone, project or context of a cluster; None is no name.

    Args:
        option: as on the command line, such as `--zone`.
        name: its value.

    Raises:
        ValueError: naming the option, the name and what is allowed.
    """
    if name is not None and not _PLACE.fullmatch(name):
        raise ValueError(
            f"{option}={name!r} must be letters, digits and any of - _ . : , / @ between them"
        )


def check_options(option: str, flags: tuple[str, ...]) -> None:
    """Refuse further flags for a cluster's command that are none, and so would be its words.

    Args:
        option: as on the command line, such as `--sbatch-flag`.
        flags: its values.

    Raises:
        ValueError: naming the option and the value.
    """
    for flag in flags:
        if not _OPTION.fullmatch(flag):
            raise ValueError(f"{option}={flag!r} must be a flag, as in {option}=--NAME=VALUE")


def check_program(option: str, program: str) -> None:
    """Refuse what names no program: nothing, or an option of the command before it.

    Args:
        option: as on the command line, such as `--python`.
        program: its value.

    Raises:
        ValueError: naming the option and the value.
    """
    check_no_control((program,))
    if not program or program.startswith("-"):
        raise ValueError(f"{option}={program!r} must be a program's name or path")


def check_polls(poll_seconds: float, max_restarts: int = 0) -> None:
    """Refuse numbers with which a job would be asked for and then not waited for.

    Args:
        poll_seconds: between questions.
        max_restarts: how often to start anew.

    Raises:
        ValueError: naming the option, the value and what is allowed.
    """
    check_range("--poll-seconds", poll_seconds, 0, MAX_POLL_SECONDS)
    check_at_least("--max-restarts", max_restarts, 0)


def check_no_control(texts: tuple[str, ...]) -> None:
    """Raise ValueError when a text holds a control character, which no shell hands on safely."""
    for text in texts:
        if _CONTROL.search(text):
            raise ValueError(f"{text!r} holds a control character")
