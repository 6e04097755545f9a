"""Data-noise alignment: give each video a near noise before it is noised.

A stage takes the noise along its line as constant; the fewer other videos share a noise, the
better that holds and the straighter the learned paths. Pairing by a permutation within a group
leaves the noise of the group exactly N(0, I).

Where to pair. Let eps_0 be paired with D_{r_0}(x_0) at the coarsest stage only, and lift it

    eps_i = U eps_{i-1} / sqrt(L) + (I - U U^T / L)^{1/2} z_i,     z_i fresh for each video

Then a stage's start point is, path by path, what the jump makes of the end point of the stage
before, and the pyramid stays exact (stage 0 starting exactly). Pairing anew in every stage, as
the paper does, trains each stage on another coupling than the jump hands on.

The noise of a video is a function of its own key alone. Paired noise is regenerated from
permuted keys, so that noise need not travel between devices.
"""

import dataclasses

import jax
import jax.numpy as jnp

from tpdiff_jax.checks import check_choice, whole_number
from tpdiff_jax.method.pairing import pair_hungarian, pair_nearest
from tpdiff_jax.method.pyramid import Pyramid
from tpdiff_jax.method.stage_transition import lift_noise
from tpdiff_jax.types import Array, PRNGKey

ALIGNMENT_MODES = ("nearest", "hungarian", "candidates", "none")
LEVELS = ("coarsest", "stage")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignmentSpec:
    """How noise is paired with videos.

    Args:
        mode: "nearest" (greedy one-to-one pairing within a group), "hungarian" (the optimal
            one-to-one pairing), "candidates" (the nearest of a few fresh noises per video, see
            below), or "none".
        level: "coarsest" (pair once and lift, exact) or "stage" (pair in every stage, the
            paper's).
        group_size: videos per group. Fixed by the config, never a device's or host's share, so
            that the pairing does not change with their number.
        num_candidates: noises drawn per video in mode "candidates".

    "candidates" moves the mean of the noise towards the video, so that no exactness is left: by
    0.84, 1.16, 1.44, 1.91 standard deviations for 4, 8, 16, 64 candidates, for unit-variance data
    of about 64 dimensions or more; by less in fewer (0.55, 0.69, 0.77, 0.82 for 4 candidates in
    1, 2, 4, 16 dimensions).

    Raises:
        ValueError: an unknown choice or a number below 1.
    """

    mode: str = "nearest"
    level: str = "coarsest"
    group_size: int = 16
    num_candidates: int = 4

    def __post_init__(self) -> None:
        check_choice("alignment.mode", self.mode, ALIGNMENT_MODES)
        check_choice("alignment.level", self.level, LEVELS)
        for field in ("group_size", "num_candidates"):
            whole_number(f"alignment.{field}", getattr(self, field))

    @property
    def batch_unit(self) -> int:
        """Videos that a batch is a multiple of: those of a group, where groups are paired."""
        return self.group_size if self.mode in ("nearest", "hungarian") else 1


def aligned_noise(
    pyramid: Pyramid,
    stage_index: int,
    x_0: Array,
    sample_keys: PRNGKey,
    spec: AlignmentSpec,
    *,
    batch_sharding: jax.sharding.NamedSharding | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Draw the noise of a training batch, paired with its videos.

    Args:
        pyramid: the stages.
        stage_index: the stage i to draw noise for.
        x_0: full videos, floating-point, [b, F, H, W, c]. One with a non-finite value counts as
            zero.
        sample_keys: one typed key per video, [b].
        spec: how to pair.
        batch_sharding: where groups span devices, how the batch axis is laid out. Each device
            then draws all noise that its videos meet, and only keys and scores travel; left to
            itself, the compiler gathers a group's noise. Results do not depend on it.

    Returns:
        eps: noise of stage i's shape, float32, [b, f, h, w, c].
        stats: float32 scalars: "alignment_gain", 1 minus the mean squared distance of the pairs
            over that of the noise as drawn, where it was paired; "noise_mean" and "noise_var"
            of eps.

    Raises:
        ValueError: the batch is not a multiple of the group size, or not of the keys' number;
            there is no such stage; or x_0 is not floating-point.

    Source: arXiv 2503.09566, Algorithm 1. Differs from the paper: the coarsest level and the
    modes "nearest" and "candidates" (arXiv 2406.12303) are added.
    """
    pyramid.stage(stage_index)
    pyramid.check_videos(x_0)
    if sample_keys.shape != x_0.shape[:1]:
        raise ValueError(f"sample_keys has shape {sample_keys.shape}; allowed: {x_0.shape[:1]}")
    is_paired = spec.mode in ("nearest", "hungarian")
    if is_paired and x_0.shape[0] % spec.group_size:
        raise ValueError(
            f"alignment.group_size is {spec.group_size}; allowed: divisors of the batch size "
            f"{x_0.shape[0]} (train.batch_size)"
        )
    # Unpaired noise is white, lifted or not: drawing it at the stage itself is cheaper.
    level = 0 if spec.level == "coarsest" and spec.mode != "none" else stage_index
    x = pyramid.stages[level].downsample(x_0).astype(jnp.float32)
    squared_norm = jnp.sum(x**2, axis=(1, 2, 3, 4), keepdims=True)
    x = jnp.where(jnp.isfinite(squared_norm), x, 0.0)
    level_keys = jax.vmap(jax.random.fold_in, (0, None))(sample_keys, level)
    if is_paired:
        eps, gain = _pair_within_groups(x, level_keys, spec, batch_sharding)
    elif spec.mode == "candidates":
        eps, gain = _nearest_candidate(x, level_keys, spec.num_candidates)
    else:
        eps, gain = _draw(level_keys, x.shape[1:]), jnp.float32(0.0)
    for fine in range(level + 1, stage_index + 1):
        z_keys = jax.vmap(jax.random.fold_in, (0, None))(sample_keys, fine)
        z = _draw(z_keys, (*pyramid.stages[fine].shape, x_0.shape[-1]))
        eps = lift_noise(pyramid, fine, eps, z)  # [b, f, h, w, c] of stage `fine`
    return eps, {"alignment_gain": gain, "noise_mean": jnp.mean(eps), "noise_var": jnp.var(eps)}


def _draw(keys: PRNGKey, shape: tuple[int, ...]) -> Array:
    """White noise, one video per key, [b, *shape]."""
    return jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)


def _replicate(x: Array, batch_sharding: jax.sharding.NamedSharding | None) -> Array:
    """The array, on every device of the mesh."""
    if batch_sharding is None:
        return x
    whole = jax.sharding.NamedSharding(batch_sharding.mesh, jax.sharding.PartitionSpec())
    return jax.lax.with_sharding_constraint(x, whole)


def _pair_within_groups(
    x: Array, keys: PRNGKey, spec: AlignmentSpec, batch_sharding: jax.sharding.NamedSharding | None
) -> tuple[Array, Array]:
    """Noise paired one to one within groups, [b, f, h, w, c], and its gain."""
    group_shape = (-1, spec.group_size)
    keys = _replicate(keys, batch_sharding)
    eps = _replicate(_draw(keys, x.shape[1:]), batch_sharding)
    x_rows, eps_rows = (a.reshape(*group_shape, a[0].size) for a in (x, eps))  # [n, g, d]
    scores = jnp.einsum("nid,njd->nij", x_rows, eps_rows, precision=jax.lax.Precision.HIGHEST)
    if batch_sharding is not None:
        # Rows stay with their videos until they are scored; else the videos would be gathered.
        rows = scores.reshape(x.shape[0], spec.group_size)
        scores = jax.lax.with_sharding_constraint(rows, batch_sharding).reshape(scores.shape)
    scores = _replicate(scores, batch_sharding)
    pairing = {"nearest": pair_nearest, "hungarian": pair_hungarian}[spec.mode]
    permutation = jax.vmap(pairing)(scores)  # [n, g]
    paired_keys = jnp.take_along_axis(keys.reshape(group_shape), permutation, axis=1).ravel()
    chosen = jnp.take_along_axis(scores, permutation[..., None], axis=2)[..., 0]
    drawn = jnp.diagonal(scores, axis1=1, axis2=2)
    # |x - eps|^2 = |x|^2 + |eps|^2 - 2 <x, eps>: a permutation changes only the last term.
    unpaired = jnp.sum(x**2) + jnp.sum(eps**2) - 2.0 * jnp.sum(drawn)
    return _draw(paired_keys, x.shape[1:]), 2.0 * jnp.sum(chosen - drawn) / unpaired


def _nearest_candidate(x: Array, keys: PRNGKey, num_candidates: int) -> tuple[Array, Array]:
    """The nearest of several noises per video, [b, f, h, w, c], and its gain.

    Candidates stream through, only the best distance and its index stay, and the winner is drawn
    once more: memory does not grow with their number.
    """
    candidate_keys = jax.vmap(jax.random.fold_in)

    def draw(index: Array) -> Array:
        return _draw(candidate_keys(keys, index), x.shape[1:])

    def keep_nearest(best: tuple[Array, Array], m: Array) -> tuple[tuple[Array, Array], Array]:
        index = jnp.full(x.shape[0], m)
        distance = jnp.sum((x - draw(index)) ** 2, axis=(1, 2, 3, 4))
        is_nearer = distance < best[0]
        nearest = jnp.where(is_nearer, distance, best[0]), jnp.where(is_nearer, index, best[1])
        return nearest, jnp.sum(distance)

    start = jnp.full(x.shape[0], jnp.inf, jnp.float32), jnp.zeros(x.shape[0], jnp.int32)
    best, totals = jax.lax.scan(keep_nearest, start, jnp.arange(num_candidates, dtype=jnp.int32))
    return draw(best[1]), 1.0 - jnp.sum(best[0]) / totals[0]
