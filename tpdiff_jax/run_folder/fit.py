"""Whether a checkpoint belongs to a run, and what else was different when it was written."""

from collections.abc import Mapping

from tpdiff_jax.run_folder.checkpoint_manifest import (
    CheckpointManifest,
    CheckpointMismatchError,
    Identity,
    differences,
)
from tpdiff_jax.run_folder.cores import describe_other_cores

_SHOWN_ARRAYS = 5


def check_fits(
    where: str, manifest: CheckpointManifest, identity: Identity | None, arrays: Mapping[str, str]
) -> None:
    """Refuse the checkpoint of another run.

    Args:
        where: which checkpoint, for the message.
        manifest: what it says.
        identity: the run that asks; None compares none.
        arrays: shape and type of every array that is asked for, by path.

    Raises:
        CheckpointMismatchError: with one line for each difference.
    """
    if manifest.identity is not None and identity is not None:
        if lines := manifest.identity.differences(identity):
            raise CheckpointMismatchError(f"{where} is of another run:\n" + "\n".join(lines))
    if manifest.arrays is not None and (lines := differences("", manifest.arrays, arrays)):
        more = "; ..." if len(lines) > _SHOWN_ARRAYS else ""
        shown = ";".join(lines[:_SHOWN_ARRAYS]) + more
        raise CheckpointMismatchError(f"{where} holds other arrays:{shown}")


def describe_other_machine(manifest: CheckpointManifest, versions: Mapping[str, str]) -> list[str]:
    """Return what may change the bits of a run that goes on, each as the end of a sentence.

    Args:
        manifest: of the checkpoint that it goes on from.
        versions: of this package and its libraries, now.
    """
    texts = []
    if lines := differences("", manifest.versions, versions):
        texts.append("comes from other versions:\n" + "\n".join(lines))
    if text := describe_other_cores(manifest.usable_cores):
        texts.append(text)
    return texts
