"""What state a workdir is in: which checkpoints are intact and what the same command would do.

Reads JSON and hashes files; needs neither a device nor the config file, and changes nothing unless
asked to trust a checkpoint.
"""

import pathlib
import shutil
import time
from typing import NamedTuple

from tpdiff_jax.results import is_complete
from tpdiff_jax.run_folder import checkpoint_folder, run_config
from tpdiff_jax.run_folder.checkpoint_manifest import (
    CHECKPOINT_MANIFEST_FILE,
    CheckpointError,
    CheckpointManifest,
    CheckpointMismatchError,
    Identity,
    digest,
    verify,
    write_checkpoint_manifest,
)

_SECONDS = (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))
_SHOWN_DIGITS = 12


class Finding(NamedTuple):
    """One checkpoint: `error` is None where it is intact, `manifest` is None where it is not."""

    step: int
    num_bytes: int
    age_seconds: float
    manifest: CheckpointManifest | None
    error: CheckpointError | None


def examine(workdir: pathlib.Path) -> int:
    """Print the state of a workdir.

    Returns:
        The step that training would go on from; 0 when there is no checkpoint yet.

    Raises:
        ValueError: when the folder is no run, or has checkpoints but no intact one of this config.
    """
    config = run_config.load_config(workdir)
    folder = workdir / "checkpoints"
    findings = [look_at(folder, step) for step in checkpoint_folder.list_steps(folder)]
    print(f"{workdir}: to be trained to step {config.train.num_steps}")
    for finding in findings:
        print(describe_finding(finding))
    for path in checkpoint_folder.list_leftovers(folder):
        size = checkpoint_folder.size_of(path)
        print(f"  leftover {path.name}, {format_bytes(size)}: removed by the next start")
    has_results = is_complete(workdir, config.train.num_steps)
    print(f"  results.json: {'complete' if has_results else 'not there yet for this length'}")
    print(f"  free space: {format_bytes(shutil.disk_usage(workdir).free)}")
    step = step_to_resume(workdir, findings)
    is_done = has_results and step == config.train.num_steps
    print("nothing is left to do" if is_done else describe_next(step, findings))
    return step


def look_at(folder: pathlib.Path, step: int) -> Finding:
    """Verify one checkpoint."""
    path = folder / str(step)
    size, age = checkpoint_folder.size_of(path), time.time() - path.stat().st_mtime
    try:
        return Finding(step, size, age, verify(path), None)
    except CheckpointError as error:
        return Finding(step, size, age, None, error)


def step_to_resume(workdir: pathlib.Path, findings: list[Finding]) -> int:
    """Return the newest intact step, or 0 when there are no checkpoints.

    Raises:
        CheckpointError: when none is intact.
        CheckpointMismatchError: when training would meet one of another format or config first.
    """
    for finding in reversed(findings):
        if isinstance(finding.error, CheckpointMismatchError):
            raise finding.error
        if finding.manifest is not None:
            check_config(workdir, finding.manifest)
            return finding.step
    if findings:
        raise CheckpointError(f"none of the {len(findings)} checkpoints of {workdir} is intact")
    return 0


def check_config(workdir: pathlib.Path, manifest: CheckpointManifest) -> None:
    """Raise CheckpointMismatchError when config.json is not that of the checkpoint."""
    if manifest.identity is None:
        return
    if lines := manifest.identity.differences(saved_identity(workdir)):
        text = "\n".join(lines)
        raise CheckpointMismatchError(f"step {manifest.step} is of another config:\n{text}")


def trust(workdir: pathlib.Path, step: int) -> None:
    """Write the manifest of a checkpoint that has none: its files count as right from now on.

    Raises:
        CheckpointError: when there is no such checkpoint or it has a manifest.
    """
    identity = saved_identity(workdir)
    folder = workdir / "checkpoints" / str(step)
    if not folder.is_dir():
        raise CheckpointError(f"--trust_step={step}: {folder} does not exist")
    if (folder / CHECKPOINT_MANIFEST_FILE).exists():
        raise CheckpointError(
            f"--trust_step={step}: {folder / CHECKPOINT_MANIFEST_FILE} exists, and what it "
            "says holds"
        )
    write_checkpoint_manifest(folder, step=step, identity=identity)
    print(f"wrote {folder / CHECKPOINT_MANIFEST_FILE}")


def saved_identity(workdir: pathlib.Path) -> Identity:
    """Return the identity that config.json gives; only a data set itself knows its fingerprint."""
    config = run_config.load_config(workdir)
    return Identity(config=run_config.deciding_fields(config), dataset=None)


def describe_finding(finding: Finding) -> str:
    """Return one line about a checkpoint."""
    state = f"UNUSABLE: {finding.error}"
    if finding.manifest is not None:
        state = "intact, " + describe_origin(finding.manifest)
    size, age = format_bytes(finding.num_bytes), format_age(finding.age_seconds)
    return f"  step {finding.step:>8}  {size:>9}  {age:>7} old  {state}"


def describe_origin(manifest: CheckpointManifest) -> str:
    """Return which run and code a checkpoint comes from, short enough for a line."""
    parts = [f"format {manifest.format_version}"]
    parts += [f"{name} {version}" for name, version in manifest.versions.items()]
    for name in ("config", "dataset"):
        content = getattr(manifest.identity, name, None)
        known = "unknown" if content is None else digest(content)[:_SHOWN_DIGITS]
        parts.append(f"{name} {known}")
    return ", ".join(parts)


def describe_next(step: int, findings: list[Finding]) -> str:
    """Return what the same training command would do."""
    if not findings:
        return "no checkpoint yet; training would start at step 0"
    newer = [str(finding.step) for finding in findings if finding.step > step]
    because = f", because {', '.join(newer)} cannot be used" if newer else ", the newest"
    return f"training would resume from step {step}{because}"


def format_bytes(num_bytes: float) -> str:
    """Return a size in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


def format_age(seconds: float) -> str:
    """Return an age in its largest unit."""
    for unit, length in _SECONDS:
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return "0 s"
