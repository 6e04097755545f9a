"""Clips of another collection to compare with, as MSR-VTT's beside a run on OpenVid-1M."""

from tpdiff_jax.checks import naming
from tpdiff_jax.data import Dataset, VideoRecordsSpec


def open_real_clips(folder: str, trained_on: Dataset) -> Dataset:
    """Open prepared clips whose captions and pixels mean what those of a run do.

    Args:
        folder: that `--mode=prepare` has finished; needs no training clips.
        trained_on: clips of the run.

    Raises:
        ValueError: naming `measure.real_clips` and what differs from the run's clips: shape, rate,
            encoders or the type of what they store.
    """
    with naming(f"measure.real_clips={folder!r}"):
        clips = VideoRecordsSpec(folder=folder, is_for_training=False)
        for what in ("num_frames", "frame_shape", "fps", "encoders", "cond_shapes"):
            own, theirs = getattr(clips, what), getattr(trained_on, what)
            if own != theirs:
                raise ValueError(f"its clips have {what} {own}, those of the run {theirs}")
    return clips
