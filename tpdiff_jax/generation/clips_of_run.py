"""The clips of a run that is opened: where its config says, or as much as the run folder keeps."""

import pathlib
from collections.abc import Mapping

from absl import logging
from ml_collections import ConfigDict

from tpdiff_jax.data import BucketedClips, ClipShape, Dataset, read_recorded_clips
from tpdiff_jax.experiment.reader import ConfigReader
from tpdiff_jax.experiment.shapes import build_datasets


def clips_of_run(
    workdir: pathlib.Path, config: ConfigDict, *, is_place_given: bool = False
) -> Mapping[str, Dataset] | None:
    """Return the data set of each bucket, so that a run folder alone is enough to sample.

    Args:
        workdir: the run's folder.
        config: of the run; `data.folder` may name a place that is gone.
        is_place_given: whether that place is asked for now: other clips there are then refused.

    Returns:
        The clips themselves where they are the run's, else what the run folder keeps of them;
        None leaves it to the config, where nothing is kept.

    Raises:
        ValueError: when a folder is asked for that cannot be opened.
    """
    recorded = read_recorded_clips(workdir)
    if not recorded or is_place_given:
        return None
    folder = config.data.folder
    try:
        found = build_datasets(ConfigReader(config))
    except (ValueError, OSError) as error:
        logging.warning("the clips are not at hand, the run folder is enough: %s", error)
        return dict(recorded)
    at_hand: dict[str, Dataset] = {
        name: clips for name, clips in found.items() if not isinstance(clips, ClipShape)
    }
    kept = BucketedClips(buckets=recorded).fingerprint()
    if BucketedClips(buckets=at_hand).fingerprint() != kept:
        logging.warning("data.folder=%s holds other clips now; the run folder is enough", folder)
        return dict(recorded)
    return at_hand
