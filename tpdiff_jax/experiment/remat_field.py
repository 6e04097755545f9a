"""`model.remat="auto"`: the word, and what stands in its place.

Training and planning choose a policy by the memory of a device (`training/remat_choice.py`); it
takes the word's place in the config, so that config.json of the run has it, and a run that goes on
or samples chooses nothing. Where nothing trains, nothing is kept for a backward pass, and the word
means `none`.
"""

import pathlib

from ml_collections import ConfigDict

from tpdiff_jax.checks import check_choice
from tpdiff_jax.experiment.window_choice import with_saved_windows
from tpdiff_jax.models.layers.block_stack import REMAT_POLICIES
from tpdiff_jax.run_folder.run_config import FILE_NAME, load_config

AUTO_REMAT = "auto"


def is_auto_remat(config: ConfigDict) -> bool:
    """Whether a config leaves to the device's memory what the backward pass keeps."""
    return config.get("model", {}).get("remat") == AUTO_REMAT


def with_remat(config: ConfigDict, policy: str) -> ConfigDict:
    """A copy of a config with this policy.

    Args:
        config: every field of every group; it stays as it is.
        policy: of `block_stack.REMAT_POLICIES`.
    """
    chosen = config.copy_and_resolve_references()
    chosen.model.remat = policy
    return chosen


def without_the_word(config: ConfigDict) -> ConfigDict:
    """The config itself, or where it has the word a copy that keeps everything.

    Raises:
        ValueError: for a policy that does not exist, naming the word with those that do.
    """
    if "remat" in config.get("model", {}):
        check_choice("model.remat", config.model.remat, (*REMAT_POLICIES, AUTO_REMAT))
    return with_remat(config, "none") if is_auto_remat(config) else config


def with_saved_choices(config: ConfigDict, workdir: pathlib.Path) -> ConfigDict:
    """What a run has chosen before in the place of the words: its windows and its policy.

    Args:
        config: every field of every group.
        workdir: of the run, which may not have begun.

    Returns:
        The config itself where there is nothing to fill in.
    """
    config = with_saved_windows(config, workdir)
    if not is_auto_remat(config) or not (workdir / FILE_NAME).exists():
        return config
    return with_remat(config, load_config(workdir).get("model", {}).get("remat", AUTO_REMAT))
