"""Which config fields of a run may change when it goes on, and which only say where something lies.

What a folder holds is known by its hash, which checkpoints and the run folder record; where it
lies may change from machine to machine.
"""

SCHEDULE_LENGTH = "optim.schedule_steps"
PLACES = (
    "data.folder",
    "model.weights",
    "adaptation.weights",
    "sample.video_weights",
    "sample.text_weights",
    "sample.prompts",
    "measure.fvd_weights",
    "measure.clip_folder",
)
"""Fields that name a file or folder whose content has a hash, or is kept by the run itself."""
LATER_FIELDS = {
    "pyramid.time_shift": 1.0,
    "pyramid.overlap": 1.0,
    "pyramid.line": "stagewise",
    "pyramid.data_mean": (0.0,),
    "train.time_sampling": "uniform",
    "train.logit_mean": 0.0,
    "train.logit_std": 1.0,
    "sample.grid_power": (1.0,),
    "sample.time_grids": (),
    "pyramid.coarse_noise": 0.0,
    "model.level_channels": (),
}
"""Fields that runs saved by earlier versions lack -> the value that means what those did."""

_LENGTHS = ("train.num_steps", SCHEDULE_LENGTH)
_GROUPS = ("mesh.", "log.")  # where arrays lie and lines go, not what they hold


def may_change(name: str, free_groups: tuple[str, ...] = ()) -> bool:
    """Whether a field may differ from that of the run's beginning, whatever it is now.

    Args:
        name: full name, as in `train.num_steps`.
        free_groups: whole groups that may differ as well.
    """
    is_length = name in _LENGTHS or name.endswith("_every_steps")
    return is_length or name.startswith(_GROUPS) or name.split(".", 1)[0] in free_groups


def is_place(name: str) -> bool:
    """Whether a field only says where something lies that is known by its hash."""
    return name in PLACES
