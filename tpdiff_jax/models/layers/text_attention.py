"""Attention of a video and its text to each other, or of the one to the other, on any devices.

    every token sees the visible text and every frame; causal: no frame after its own

The text counts to frame 0: a causal text sees frame 0 and nothing later. Causal attention runs
frame by frame, each against the frames up to itself, so that any kernel serves and no mask of
queries against keys is stored.

Padding is hidden as keys only. What padded text itself sees is arbitrary: nothing sees it, and it
is thrown away at the end.

Patches of the frames may be divided over devices: each computes its own against all frames, which
it gathers first. All of them hold the text and compute it alike.
"""

import jax.numpy as jnp

from tpdiff_jax.models.layers.attention import Attend, JointAttend
from tpdiff_jax.models.layers.attention_kernels import attend_by
from tpdiff_jax.types import Array, Layout

TEXT_AXES = ("batch", None, "heads", None)  # of [b, m, n, e]
VIDEO_AXES = ("batch", None, "tokens", "heads", None)  # of [b, f, l, n, e]
MASK_AXES = ("batch", None)


def attention_with_text(
    choice: str, layout: Layout, text_mask: Array, is_causal: bool
) -> JointAttend:
    """Return attention of (text [b, m, n, e], video [b, f, l, n, e]).

    Args:
        choice: a kernel, one of `attention_kernels.CHOICES`.
        layout: the devices.
        text_mask: non-zero for text, zero for padding, [b, m].
        is_causal: whether frames see earlier ones only.
    """

    def on_shard(
        q_text: Array, q_video: Array, k_text: Array, k_video: Array, *rest: Array
    ) -> tuple[Array, Array]:
        v_text, v_video, is_text = rest
        k_video, v_video = (layout.gather(part, "tokens", 2) for part in (k_video, v_video))
        num_text, num_frames = q_text.shape[1], q_video.shape[1]
        outputs = []
        # One group of queries that see the same keys: all of them, or one frame.
        for first, last in _groups(num_frames, is_causal):
            q = _flat(q_video[:, first:last])
            q = jnp.concatenate([q_text, q], axis=1) if first == 0 else q
            k, v = (
                jnp.concatenate([text, _flat(video[:, :last])], axis=1)
                for text, video in ((k_text, k_video), (v_text, v_video))
            )
            mask = jnp.pad(is_text, ((0, 0), (0, k.shape[1] - num_text)), constant_values=True)
            outputs.append(attend_by(choice, layout.platform, q, k, v, mask))
        joined = jnp.concatenate(outputs, axis=1)
        return joined[:, :num_text], joined[:, num_text:].reshape(q_video.shape)

    run = layout.over_shards(
        on_shard, (TEXT_AXES, VIDEO_AXES) * 3 + (MASK_AXES,), (TEXT_AXES, VIDEO_AXES)
    )

    def attend(
        q: tuple[Array, ...], k: tuple[Array, ...], v: tuple[Array, ...]
    ) -> tuple[Array, ...]:
        return run(*q, *k, *v, jnp.asarray(text_mask) != 0)

    return attend


def attention_to_text(choice: str, layout: Layout, text_mask: Array | None = None) -> Attend:
    """Return attention of a video [b, f, l, n, e] to the tokens of its text [b, m, n, e].

    Args:
        choice: a kernel, one of `attention_kernels.CHOICES`.
        layout: the devices.
        text_mask: non-zero for text, zero for padding, [b, m]; a text that is all padding is seen
            whole. None: all of it is seen.
    """

    def on_shard(q: Array, k: Array, v: Array, *mask: Array) -> tuple[Array]:
        return (attend_by(choice, layout.platform, _flat(q), k, v, *mask).reshape(q.shape),)

    masks: tuple[Array, ...] = ()
    if text_mask is not None:
        is_text = jnp.asarray(text_mask) != 0
        masks = (is_text | ~jnp.any(is_text, axis=1, keepdims=True),)
    axes = (VIDEO_AXES, TEXT_AXES, TEXT_AXES, *(MASK_AXES for _ in masks))
    run = layout.over_shards(on_shard, axes, (VIDEO_AXES,))
    return lambda q, k, v: run(q, k, v, *masks)[0]


def num_seen_keys(num_text: int, num_frames: int, num_patches: int, is_causal: bool) -> float:
    """Keys that a token sees, on average over text and video, padding included.

    Args:
        num_text: tokens of text.
        num_frames: frames.
        num_patches: patches of a frame.
        is_causal: text sees text and the first frame, a frame sees text and frames up to itself.

    Returns:
        Mean number of keys.
    """
    if not is_causal:
        return float(num_text + num_frames * num_patches)
    seen = [num_text + (i + 1) * num_patches for i in range(num_frames)]
    total = num_text * seen[0] + num_patches * sum(seen)
    return total / (num_text + num_frames * num_patches)


def _groups(num_frames: int, is_causal: bool) -> list[tuple[int, int]]:
    """First frame of each group of queries, and the one after its last."""
    return [(i, i + 1) for i in range(num_frames)] if is_causal else [(0, num_frames)]


def _flat(video: Array) -> Array:
    """[b, f, l, n, e] -> [b, f l, n, e]."""
    return video.reshape(video.shape[0], -1, *video.shape[3:])
