"""Compiled programs kept on disk, so that the next start of a run need not compile them again.

They lie in the user's cache folder, not beside a run: runs of one config share their programs, and
a workdir may be a bucket. What XLA makes for a CPU depends on its instructions and on the number
of cores, which JAX's keys leave out, so each kind of machine has a folder of its own. A damaged or
unreadable entry is compiled anew, with JAX's warning; whoever may write there may run code.

JAX writes entries in place and never over one that is there: what a killed run has left half
written would be compiled anew at every start for ever, so files that were cut are removed.
"""

import hashlib
import os
import pathlib
import platform
import time
import zlib

import jax
from absl import logging
from jax.experimental.compilation_cache.compilation_cache import reset_cache

OFF = "off"
_LIKE_OFF = ("none", "no", "false", "0", "disable", "disabled")  # folders that nobody means
MAX_BYTES = 4 * 2**30  # of a machine's folder; then the oldest programs go
LEAST_SECONDS = 0.1  # programs compiled faster are not worth a file
_CHECKED = ".checked"  # its time: entries before it have been looked at
_WRITING_SECONDS = 60.0  # another process may still write an entry this young
_ZLIB_FIRST_BYTE = b"\x78"
_CPU_FACTS = pathlib.Path("/proc/cpuinfo")


def open_compilation_cache(given: str | None) -> pathlib.Path | None:
    """Let JAX keep compiled programs, before it compiles the first one.

    Args:
        given: --compilation_cache: a folder, or `off` in any case. None takes
            JAX_COMPILATION_CACHE_DIR, or else the user's own folder; where that cannot be made,
            nothing is kept.

    Returns:
        The folder; None where nothing is kept, or JAX's own variable says where.

    Raises:
        ValueError: when a given folder cannot be made, or is none.
    """
    if given is not None and (not given.strip() or given.lower() in _LIKE_OFF):
        raise ValueError(
            f"--compilation_cache is {given!r}; allowed: a folder (./NAME for one of this name), "
            f"gs://BUCKET/FOLDER or {OFF}"
        )
    if given is not None and given.lower() == OFF:
        jax.config.update("jax_enable_compilation_cache", False)
        return None
    if given is None and jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return None
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
    if given and "://" in given:  # JAX writes to buckets by itself
        jax.config.update("jax_compilation_cache_dir", given)
        return None
    try:
        folder = pathlib.Path(given) if given else user_cache_folder() / machine_name()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not given:
            remove_cut(folder)
            remove_oldest(folder, MAX_BYTES)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        if given:
            raise ValueError(f"--compilation_cache={given} cannot be made: {error}") from error
        logging.warning("compiled programs are not kept: %s", error)
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def reopen_compilation_cache(given: str | None) -> pathlib.Path | None:
    """As `open_compilation_cache`, in a process that may have compiled programs already.

    Args:
        given: a folder or `off`, for all that the process compiles from here on. None changes
            nothing where the process has a folder, or has switched such folders off.

    Returns:
        The folder; None where nothing is kept, or the process had one before.

    Raises:
        ValueError: when a given folder cannot be made, or is none.
    """
    names = ("jax_compilation_cache_dir", "jax_enable_compilation_cache")
    before = [jax.config.values[name] for name in names]
    if given is None and not jax.config.values["jax_enable_compilation_cache"]:
        return None
    folder = open_compilation_cache(given)
    if given is not None and given.lower() != OFF:
        jax.config.update("jax_enable_compilation_cache", True)
    if [jax.config.values[name] for name in names] != before:
        reset_cache()  # JAX asks once whether there is one, and where
    return folder


def user_cache_folder() -> pathlib.Path:
    """Return this package's folder among the user's caches; it need not exist.

    Raises:
        RuntimeError: when the user has no home.

    Source: XDG Base Directory Specification: a path that is not absolute does not count.
    """
    told = pathlib.Path(os.environ.get("XDG_CACHE_HOME", ""))
    root = told if told.is_absolute() else pathlib.Path.home() / ".cache"
    return root / "tpdiff_jax" / "compiled"


def machine_name() -> str:
    """Return a name that machines share whose CPU programs are the same."""
    told = os.environ.get("NPROC", "")  # which XLA asks first
    affinity = getattr(os, "sched_getaffinity", None)
    cores = int(told) if told.isdecimal() else len(affinity(0)) if affinity else os.cpu_count()
    lines = _CPU_FACTS.read_text().splitlines() if _CPU_FACTS.is_file() else [platform.processor()]
    words = ("model name", "flags", "Features", "CPU part")
    facts = sorted({line for line in lines if line.startswith(words) or len(lines) == 1})
    digest = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]
    return f"{platform.machine()}-{cores}-cores-{digest}"


def remove_oldest(folder: pathlib.Path, max_bytes: int) -> None:
    """Remove the files of a folder that were written first until no more than `max_bytes` are left.

    Args:
        folder: of files that can be made again.
        max_bytes: what may stay.
    """
    files = [(path, path.stat()) for path in folder.iterdir() if path.is_file()]
    total = sum(facts.st_size for _, facts in files)
    for path, facts in sorted(files, key=lambda entry: entry[1].st_mtime):
        if total <= max_bytes:
            return
        path.unlink(missing_ok=True)
        total -= facts.st_size


def remove_cut(folder: pathlib.Path) -> list[str]:
    """Remove entries of which only a part was written; each is looked at once.

    Args:
        folder: of JAX's entries. Those compressed by zlib tell that they were cut, which is what
            JAX takes where no Zstandard is installed; others stay.

    Returns:
        Names of what was removed.
    """
    marker = folder / _CHECKED
    since = marker.stat().st_mtime if marker.is_file() else 0.0
    until = time.time() - _WRITING_SECONDS
    removed = []
    for path in sorted(folder.glob("*-cache")):
        if since <= path.stat().st_mtime < until and _is_cut(path):
            logging.warning("a compiled program was written in part: removed %s", path)
            path.unlink(missing_ok=True)
            removed.append(path.name)
    marker.touch()
    os.utime(marker, (until, until))
    return removed


def _is_cut(path: pathlib.Path) -> bool:
    reader, first = zlib.decompressobj(), True
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            if first and not part.startswith(_ZLIB_FIRST_BYTE):
                return False
            first = False
            try:
                reader.decompress(part)
            except zlib.error:
                return True
    return not reader.eof  # an empty file too
