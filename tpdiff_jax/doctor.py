"""What state a workdir is in: which checkpoints are intact and what the same command would do.

Reads JSON and hashes files; needs neither a device nor the config file, and changes nothing unless
asked to trust a checkpoint.
"""

import contextlib
import pathlib
import shutil
import time
from typing import Any, NamedTuple

from tpdiff_jax.checks import naming, whole_number
from tpdiff_jax.files.json_files import read_json
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
from tpdiff_jax.run_folder.results_file import is_complete
from tpdiff_jax.run_log.lost_lines import describe_lost_lines, last_logged_step

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
    num_steps, log_every_steps = read_lengths(workdir)
    folder = workdir / "checkpoints"
    findings = [look_at(folder, step) for step in checkpoint_folder.list_steps(folder)]
    print(f"{workdir}: to be trained to step {num_steps}")
    for finding in findings:
        print(describe_finding(finding))
    for path in checkpoint_folder.list_leftovers(folder):
        size = checkpoint_folder.size_of(path)
        print(f"  leftover {path.name}, {format_bytes(size)}: removed by the next start")
    for path in checkpoint_folder.list_foreign(folder):
        print(f"  {path.name}: no checkpoint; left alone")
    has_results = is_complete(workdir, num_steps)
    print(f"  results.json: {'complete' if has_results else 'not there yet for this length'}")
    print(f"  free space: {format_bytes(shutil.disk_usage(workdir).free)}")
    step = step_to_resume(workdir, findings)
    if text := describe_lost_metrics(workdir, step, log_every_steps):
        print(f"  {text}")
    is_done = has_results and step == num_steps
    print("nothing is left to do" if is_done else describe_next(step, findings))
    return step


def read_lengths(workdir: pathlib.Path) -> tuple[int, int]:
    """Return `train.num_steps` and `train.log_every_steps` of config.json.

    Raises:
        ValueError: when the folder is no run, or one of them is no such number.
    """
    fields = dict(run_config.flat_fields(run_config.load_config(workdir)))
    names = ("train.num_steps", "train.log_every_steps")
    with naming(str(workdir / run_config.FILE_NAME)):
        num_steps, log_every_steps = (whole_number(name, fields.get(name)) for name in names)
    return num_steps, log_every_steps


def describe_lost_metrics(workdir: pathlib.Path, step: int, log_every_steps: int) -> str | None:
    """Return which lines of metrics before a checkpoint are not there any more.

    Args:
        workdir: of the run.
        step: the checkpoint's, known to be intact; 0 for none.
        log_every_steps: tells the last line where the checkpoint does not.
    """
    totals: dict[str, Any] = {}
    with contextlib.suppress(ValueError):
        totals = read_json(workdir / "checkpoints" / str(step) / "totals" / "metadata")
    logged_step = last_logged_step(totals) or step // log_every_steps * log_every_steps
    return describe_lost_lines(workdir, step=step, logged_step=logged_step)


def look_at(folder: pathlib.Path, step: int) -> Finding:
    """Verify one checkpoint."""
    path = folder / str(step)
    # Of a link itself: what it leads to may be gone.
    size, age = checkpoint_folder.size_of(path), time.time() - path.lstat().st_mtime
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
