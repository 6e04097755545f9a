"""The manifest of a checkpoint: every file with its size and SHA-256, and which run it belongs to.

Orbax returns wrong numbers without a word when one bit of a file has flipped, so nothing is read
before its bytes are known to be those that were written. `manifest.json` lies inside the
checkpoint's folder and carries a checksum of its own. It is written, and every file flushed to
disk, before the folder gets its final name: a finished checkpoint always has one.

Reading and verifying need neither jax nor a device.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

from tpdiff_jax import __version__
from tpdiff_jax.files.durable import flush, sha256_of_file, write_durably
from tpdiff_jax.files.json_files import MAX_JSON_BYTES, parse_json, read_small_file
from tpdiff_jax.files.json_schema import (
    COUNT,
    TABLE,
    TEXT,
    Closed,
    Maybe,
    Schema,
    TableOf,
    check_json,
)
from tpdiff_jax.run_folder.free_fields import LATER_FIELDS, is_place, may_change

CHECKPOINT_MANIFEST_FILE = "manifest.json"
FORMAT_VERSION = 2
"""Changes whenever checkpoints of the version before can no longer be read."""

_FORMAT: dict[str, Schema] = {"format_version": COUNT, "versions": TableOf(TEXT)}
# Closed: a member that this version does not know was not written by it.
_BODY = Closed(
    {
        **_FORMAT,
        "step": COUNT,
        "identity": Maybe(Closed({"config": TABLE, "dataset": Maybe(TABLE)})),
        "arrays": Maybe(TableOf(TEXT)),
        "files": TableOf(Closed({"bytes": COUNT, "sha256": TEXT})),
        "usable_cores?": Maybe(COUNT),
    }
)
_PACKAGES = ("jax", "orbax-checkpoint")
_HASH_THREADS = 4
_SHOWN = 5


class CheckpointError(ValueError):
    """No checkpoint could be used."""


class DamagedCheckpointError(CheckpointError):
    """The bytes on disk are not those that were written."""


class CheckpointMismatchError(CheckpointError):
    """An intact checkpoint belongs to another run or another version."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """What a checkpoint belongs to.

    Attributes:
        config: the config fields that decide the numbers, flat, as JSON holds them.
        dataset: the data set's `fingerprint()`; None when it is not known.
    """

    config: Mapping[str, Any]
    dataset: Mapping[str, Any] | None

    def differences(self, now: "Identity") -> list[str]:
        """Return one line for each field in which `now` differs; an unknown data set fits all."""
        # A manifest of earlier versions names places, and none of the fields added since.
        later = json.loads(json.dumps(LATER_FIELDS))
        old, new = (
            {name: value for name, value in (later | dict(fields)).items() if not _is_free(name)}
            for fields in (self.config, now.config)
        )
        lines = differences("config.", old, new)
        if self.dataset is not None and now.dataset is not None:
            lines += differences("dataset.", self.dataset, now.dataset)
        return lines


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointManifest:
    """What `manifest.json` says.

    Attributes:
        step: completed steps.
        format_version: `FORMAT_VERSION` of the code that wrote it.
        versions: of this package, Python, jax and orbax.
        identity: the run; None when it was not recorded.
        arrays: shape and type of every array of the state, by path; None when not recorded.
        files: size in bytes and SHA-256 of every other file, by path in the folder.
        usable_cores: of the CPU whose bits the state holds; None where a CPU did not compute it.
    """

    step: int
    format_version: int
    versions: Mapping[str, str]
    identity: Identity | None
    arrays: Mapping[str, str] | None
    files: Mapping[str, Mapping[str, Any]]
    usable_cores: int | None = None

    @property
    def num_bytes(self) -> int:
        """Size of all files."""
        return sum(entry["bytes"] for entry in self.files.values())


def write_checkpoint_manifest(
    folder: pathlib.Path,
    *,
    step: int,
    identity: Identity | None = None,
    arrays: Mapping[str, str] | None = None,
    usable_cores: int | None = None,
) -> CheckpointManifest:
    """Hash every file of `folder`, flush all to disk and write the manifest in one step.

    Args:
        folder: of one checkpoint, otherwise complete.
        step: completed steps.
        identity: config and data set of the run; None where unknown.
        arrays: shape and type of every array, by path; None where unknown.
        usable_cores: of the CPU that computed the state; None for another device.

    Returns:
        What was written.
    """
    files = {name: _flushed_entry(folder / name) for name in _file_names(folder)}
    manifest = CheckpointManifest(
        step=step,
        format_version=FORMAT_VERSION,
        versions=checkpoint_versions(),
        identity=identity,
        arrays=arrays,
        files=files,
        usable_cores=usable_cores,
    )
    body = dataclasses.asdict(manifest)
    text = json.dumps({"manifest": body, "sha256": digest(body)}, indent=1, sort_keys=True)
    write_durably(folder / CHECKPOINT_MANIFEST_FILE, (text + "\n").encode())
    for path in (path for path in folder.rglob("*") if path.is_dir()):
        flush(path)
    return manifest


def read_checkpoint_manifest(folder: pathlib.Path) -> CheckpointManifest:
    """Read the manifest of a checkpoint, without looking at the other files.

    Raises:
        DamagedCheckpointError: when it is missing or not as written.
        CheckpointMismatchError: when another version of the format wrote it.
    """
    path = folder / CHECKPOINT_MANIFEST_FILE
    try:
        schema = Closed({"manifest": TABLE, "sha256": TEXT})
        content = parse_json(read_small_file(path, MAX_JSON_BYTES), schema, path.name)
        body, checksum = content["manifest"], content["sha256"]
    except FileNotFoundError as error:
        raise DamagedCheckpointError(f"{CHECKPOINT_MANIFEST_FILE} is missing") from error
    except (OSError, ValueError) as error:
        raise DamagedCheckpointError(f"{CHECKPOINT_MANIFEST_FILE} is unreadable") from error
    if digest(body) != checksum:
        raise DamagedCheckpointError(f"{CHECKPOINT_MANIFEST_FILE} is not as it was written")
    _check_body(body, _FORMAT)
    if body["format_version"] != FORMAT_VERSION:
        lines = differences("", body["versions"], checkpoint_versions())
        raise CheckpointMismatchError(
            f"{folder} has checkpoint format {body['format_version']}, this code reads and writes "
            f"{FORMAT_VERSION}; use the version that wrote it:\n" + "\n".join(lines)
        )
    _check_body(body, _BODY)
    identity = body.pop("identity")
    return CheckpointManifest(**body, identity=Identity(**identity) if identity else None)


def verify(folder: pathlib.Path) -> CheckpointManifest:
    """Compare every file of a checkpoint with its manifest.

    Args:
        folder: the checkpoint, named by its step.

    Returns:
        The manifest.

    Raises:
        DamagedCheckpointError: naming the first files that are missing, too many or changed.
        CheckpointMismatchError: when another version of the format wrote it.
    """
    manifest = read_checkpoint_manifest(folder)
    if folder.name != str(manifest.step):
        raise DamagedCheckpointError(f"the folder holds step {manifest.step}")
    found, listed = set(_file_names(folder)), set(manifest.files)
    for names, what in ((listed - found, "missing"), (found - listed, "not in the manifest")):
        if names:
            raise DamagedCheckpointError(_some(sorted(names), f"is {what}", f"are {what}"))
    with concurrent.futures.ThreadPoolExecutor(_HASH_THREADS) as pool:
        changed = [problem for problem in pool.map(_problem, *_pairs(folder, manifest)) if problem]
    if changed:
        raise DamagedCheckpointError("; ".join(changed[:_SHOWN]))
    return manifest


def identify_save(folder: pathlib.Path) -> str:
    """Return what tells a damaged save of a step from another one, wherever the run lies.

    The manifest and orbax's own notes hold hashes and times; what is left of them is hashed.
    """
    hashes = {}
    for path in sorted(folder.glob("*")):
        with contextlib.suppress(OSError):  # a disk that does not give it back
            if path.is_file():
                hashes[path.name] = sha256_of_file(path)
    return digest(hashes)


def digest(content: Any) -> str:
    """Return the SHA-256 of a JSON value in a fixed notation."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def differences(prefix: str, saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return one line for each entry in which two flat mappings differ.

    Args:
        prefix: put before each name, such as `config.`.
        saved: entries of the checkpoint.
        now: entries of this run.

    Returns:
        Lines in the order of the names; none where they agree.
    """
    absent = "(absent)"
    return [
        f"  {prefix}{name}: saved {saved.get(name, absent)!r}, now {now.get(name, absent)!r}"
        for name in sorted(saved.keys() | now.keys())
        if saved.get(name, absent) != now.get(name, absent)
    ]


def _is_free(name: str) -> bool:
    return may_change(name) or is_place(name)


def checkpoint_versions() -> dict[str, str]:
    """Return the versions that decide what a checkpoint looks like and which bits a step gives."""
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"tpdiff_jax": __version__, "python": platform.python_version(), **packages}


def _check_body(body: Any, schema: Schema) -> None:
    try:
        check_json(body, schema, CHECKPOINT_MANIFEST_FILE)
    except ValueError as error:
        raise DamagedCheckpointError(str(error)) from error


def _file_names(folder: pathlib.Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if not path.is_dir())
    names = (path.relative_to(folder).as_posix() for path in paths)
    return sorted(name for name in names if name != CHECKPOINT_MANIFEST_FILE)


def _flushed_entry(path: pathlib.Path) -> dict[str, Any]:
    flush(path)
    return {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}


def _pairs(
    folder: pathlib.Path, manifest: CheckpointManifest
) -> tuple[list[pathlib.Path], list[Any]]:
    return [folder / name for name in manifest.files], list(manifest.files.values())


def _problem(path: pathlib.Path, listed: Mapping[str, Any]) -> str | None:
    """Say how a file differs from what the manifest lists, if it does."""
    try:
        size = path.stat().st_size
        if size != listed["bytes"]:
            return f"{path.name} has {size} bytes instead of {listed['bytes']}"
        if sha256_of_file(path) != listed["sha256"]:
            return f"{path.name} has changed bytes (SHA-256 differs)"
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror})"
    return None


def _some(names: list[str], singular: str, plural: str) -> str:
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"{shown} {singular if len(names) == 1 else plural}"


def first_line(error: BaseException) -> str:
    """Return the type of an error and the start of what it says."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200] if text else ''}"
