"""Cut frames into square patches, one token each, and put them back.

A token holds its patch in (row, column, channel) order; frames are never merged, so that a stage
with fewer frames has the same tokens per frame.
"""

from einops import rearrange

from tpdiff_jax.types import Array


def frames_to_patches(video: Array, patch_size: int) -> Array:
    """Cut every frame into patches.

    Args:
        video: [b, f, h, w, c]; h and w multiples of `patch_size`.
        patch_size: side of a patch, pixels.

    Returns:
        [b, f, l, patch_size^2 * c], patches in row-major order.
    """
    return rearrange(video, "b f (r p) (s q) c -> b f (r s) (p q c)", p=patch_size, q=patch_size)


def patches_to_frames(patches: Array, patch_size: int, num_rows: int) -> Array:
    """Undo `frames_to_patches`.

    Args:
        patches: [b, f, l, patch_size^2 * c].
        patch_size: side of a patch, pixels.
        num_rows: rows of patches in a frame.

    Returns:
        [b, f, h, w, c].
    """
    return rearrange(
        patches,
        "b f (r s) (p q c) -> b f (r p) (s q) c",
        r=num_rows,
        p=patch_size,
        q=patch_size,
    )


def check_frames(x_t: Array, frame_shape: tuple[int, int, int]) -> None:
    """Raise ValueError unless x_t is [b, f, h, w, c] with frames [h, w, c] of `frame_shape`."""
    if x_t.ndim != 5 or x_t.shape[2:] != frame_shape:
        raise ValueError(f"x_t must be [b, f, h, w, c] with frames {frame_shape}, got {x_t.shape}")
