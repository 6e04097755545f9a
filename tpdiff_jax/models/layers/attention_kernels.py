"""Kernels for scaled dot-product attention, and which one runs where.

    "xla"     products and softmax as the compiler fuses them; any device, any type
    "blocks"  the same in blocks of keys, scores computed anew backward; any device, any type
    "splash"  blockwise on TPU (Pallas): the scores never leave the chip's vector memory
    "cudnn"   flash attention of cuDNN on GPU, in bfloat16

"auto" takes splash on TPU, cuDNN on GPU where the type allows, blocks on CPU, XLA elsewhere.
Whatever is chosen, sequences shorter than `MIN_TOKENS` stay on XLA: they would be mostly padding of
splash's smallest block, as attention over 16 frames is. So do heads that cuDNN does not take. On a
CPU "auto" stays there too where queries or keys are fewer than `MIN_TOKENS_CPU`: such scores fit
the caches, and blocks of them took up to a quarter more time.

Where tokens are divided over devices, every device computes its own queries against all keys and
values, which it gathers first; heads and samples need no exchange.

Kernels take a mask of the keys besides, for text that is padded: one number a key, never the square
of queries and keys.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from tpdiff_jax.models.layers.attention import Attend, dot_product_attention
from tpdiff_jax.models.layers.attention_blocks import blockwise_attention
from tpdiff_jax.types import Array, Layout

CHOICES = ("auto", "xla", "blocks", "splash", "cudnn")
PLATFORMS = {"splash": "tpu", "cudnn": "gpu"}
MIN_TOKENS = 128
MIN_TOKENS_CPU = 256  # from there on blocks were no slower, forward and backward
CUDNN_HEAD_UNIT, CUDNN_MAX_HEAD = 8, 128  # channels of a head; more than 128 only from Hopper on
_BLOCKS = (512, 256, 128)  # rows of queries or keys in a block of splash, largest first


def check_kernel(choice: str, platform: str, dtype: str) -> None:
    """Refuse a kernel that cannot run on these devices or in this type.

    Args:
        choice: one of `CHOICES`.
        platform: cpu, gpu or tpu.
        dtype: `model.dtype`.

    Raises:
        ValueError: naming the field, its value and what is needed.
    """
    needed = PLATFORMS.get(choice, platform)
    if platform != needed:
        raise ValueError(
            f"model.attention_kernel={choice!r} needs a {needed}, the devices are {platform}; "
            "auto, xla and blocks run everywhere"
        )
    if choice == "cudnn" and dtype != "bfloat16":
        raise ValueError(
            f"model.attention_kernel='cudnn' needs model.dtype='bfloat16', got {dtype!r}"
        )


def choose_kernel(
    choice: str,
    platform: str,
    dtype: str,
    num_tokens: int,
    num_queries: int | None = None,
    head_dim: int = CUDNN_HEAD_UNIT,
) -> str:
    """Return the kernel for sequences of one length; see the top of this file.

    Args:
        choice: one of `CHOICES`.
        platform: cpu, gpu or tpu.
        dtype: of the queries, by name.
        num_tokens: number of keys.
        num_queries: number of queries; None: as many.
        head_dim: channels of a head.

    Returns:
        A key of `KERNELS`.
    """
    if num_tokens < MIN_TOKENS:
        return "xla"
    if choice == "cudnn" or (choice == "auto" and platform == "gpu" and dtype == "bfloat16"):
        is_taken = head_dim % CUDNN_HEAD_UNIT == 0 and head_dim <= CUDNN_MAX_HEAD
        return "cudnn" if is_taken else "xla"
    if choice != "auto":
        return choice
    if platform == "tpu":
        return "splash"
    fewest = min(num_tokens, num_tokens if num_queries is None else num_queries)
    return "blocks" if platform == "cpu" and fewest >= MIN_TOKENS_CPU else "xla"


def attention_over(axis: str, choice: str, layout: Layout, heads: str | None = "heads") -> Attend:
    """Return attention along one axis of a video's tokens, on however many devices.

    Args:
        axis: "space" ([b, f, l, n, e], over l), "time" ([b, l, f, n, e], over f) or "video"
            ([b, f, l, n, e], over f and l).
        choice: one of `CHOICES`.
        layout: the devices.
        heads: axis that heads are divided along; None: all devices have all heads.

    Returns:
        A function of queries, keys and values of that shape.
    """

    def attend(q: Array, k: Array, v: Array) -> tuple[Array]:
        shape = q.shape
        if axis != "time":
            k, v = (layout.gather(part, "tokens", 2) for part in (k, v))
        if axis == "video":
            q, k, v = (part.reshape(shape[0], -1, *shape[3:]) for part in (q, k, v))
        return (attend_by(choice, layout.platform, q, k, v).reshape(shape),)

    places = ("tokens", None) if axis == "time" else (None, "tokens")
    axes = ("batch", *places, heads, None)
    on_shards = layout.over_shards(attend, (axes,) * 3, (axes,))
    return lambda q, k, v: on_shards(q, k, v)[0]


def attend_by(
    choice: str, platform: str, q: Array, k: Array, v: Array, key_mask: Array | None = None
) -> Array:
    """`dot_product_attention` by the kernel for these arrays, see `choose_kernel`.

    Args:
        choice: one of `CHOICES`.
        platform: cpu, gpu or tpu.
        q: queries, [..., l, n, e].
        k: keys, [..., m, n, e].
        v: values, [..., m, n, e].
        key_mask: True for keys to be seen, bool [b, m], where b is the only axis before l; None:
            all of them.

    Returns:
        [..., l, n, e], dtype of v.
    """
    num_queries, _, head_dim = q.shape[-3:]
    name = choose_kernel(choice, platform, q.dtype.name, k.shape[-3], num_queries, head_dim)
    return KERNELS[name](q, k, v, key_mask)


def cudnn_attention(q: Array, k: Array, v: Array, key_mask: Array | None = None) -> Array:
    """`dot_product_attention` by cuDNN: bfloat16 on a GPU only.

    cuDNN knows how many keys a sample has, not which: visible ones are brought to the front.

    Args:
        q: queries, [..., l, n, e].
        k: keys, [..., m, n, e].
        v: values, [..., m, n, e].
        key_mask: whether each key is seen, bool [b, m], where b is the only axis before l; None:
            all are.

    Returns:
        [..., l, n, e].
    """
    flat = [part.reshape(-1, *part.shape[-3:]) for part in (q, k, v)]
    lengths = None
    if key_mask is not None:
        order = jnp.argsort(~key_mask, axis=1, stable=True)[..., None, None]
        flat[1:] = [jnp.take_along_axis(part, order, axis=1) for part in flat[1:]]
        lengths = key_mask.sum(axis=1, dtype=jnp.int32)
    return jax.nn.dot_product_attention(
        *flat, key_value_seq_lengths=lengths, implementation="cudnn"
    ).reshape(q.shape)


def splash_attention(
    q: Array,
    k: Array,
    v: Array,
    key_mask: Array | None = None,
    *,
    is_interpreted: bool = False,
) -> Array:
    """`dot_product_attention` in blocks, on a TPU; interpreted, slowly, on anything.

    Sequences are padded to whole blocks. Padded and masked keys are another segment than all
    queries, so nothing attends to them; padded queries are cut off.

    Args:
        q: queries, [..., l, n, e].
        k: keys, [..., m, n, e].
        v: values, [..., m, n, e].
        key_mask: whether each key is seen, bool [b, m], where b is the only axis before l; None:
            all are.
        is_interpreted: run without a TPU.

    Returns:
        [..., l, n, e].
    """
    # Imported here: elsewhere nobody should wait for Pallas.
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    shape, num_queries, num_keys = q.shape, q.shape[-3], k.shape[-3]
    block_q, block_k = block_size(num_queries), block_size(num_keys)
    q, k, v = (
        _heads_first(part, block)  # [-1, n, l padded, e]
        for part, block in ((q * q.shape[-1] ** -0.5, block_q), (k, block_k), (v, block_k))
    )
    mask = splash.FullMask((q.shape[2], k.shape[2]))
    kernel = splash.make_splash_mha(
        mask=splash.MultiHeadMask([mask] * q.shape[1]),
        block_sizes=splash.BlockSizes(
            block_q=block_q,
            block_kv=block_k,
            block_q_dkv=block_q,
            block_kv_dkv=block_k,
            block_q_dq=block_q,
            block_kv_dq=block_k,
        ),
        head_shards=1,
        q_seq_shards=1,
        interpret=is_interpreted,
    )
    is_hidden = jnp.ones((1, num_keys), bool) if key_mask is None else key_mask
    is_hidden = ~jnp.pad(is_hidden, ((0, 0), (0, k.shape[2] - num_keys)))
    segments = splash.SegmentIds(
        q=jnp.zeros((q.shape[0], q.shape[2]), jnp.int32),
        kv=jnp.broadcast_to(is_hidden.astype(jnp.int32), (k.shape[0], k.shape[2])),
    )
    out = jax.vmap(kernel)(q, k, v, segments)
    return out.swapaxes(1, 2)[:, :num_queries].reshape(shape)


def block_size(num_tokens: int) -> int:
    """Return the largest block that needs no more padding than the smallest one."""
    smallest = _BLOCKS[-1]
    padded = -(-num_tokens // smallest) * smallest
    return next(block for block in _BLOCKS if padded % block == 0)


def _heads_first(x: Array, block: int) -> Array:
    """[..., l, n, e] -> [-1, n, l padded to whole blocks, e]."""
    x = x.reshape(-1, *x.shape[-3:]).swapaxes(1, 2)
    return jnp.pad(x, ((0, 0), (0, 0), (0, -x.shape[2] % block), (0, 0)))


KERNELS: dict[str, Callable[..., Array]] = {
    "xla": dot_product_attention,
    "blocks": blockwise_attention,
    "splash": splash_attention,
    "cudnn": cudnn_attention,
}
