"""Executed FLOPs are counted through loops, recomputation and kernels; models' FLOPs are right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl

from tpdiff_jax.models import VideoDiT, VideoDiTConfig
from tpdiff_jax.planning.program_flops import matmul_flops
from tpdiff_jax.types import Positions

PRODUCT = 2.0 * 8 * 16 * 16
"""FLOPs of [8, 16] @ [16, 16]."""

X, W = jnp.ones((8, 16)), jnp.ones((16, 16))


def flops(function, *args) -> float:  # type: ignore[no-untyped-def]
    return matmul_flops(jax.jit(function).trace(*args).jaxpr.jaxpr)


def test_a_product_counts_two_flops_a_term_and_batches_multiply() -> None:
    assert flops(jnp.matmul, X, W) == PRODUCT
    batched = jnp.ones((3, 5, 8, 16)), jnp.ones((3, 5, 16, 16))
    assert flops(jnp.matmul, *batched) == 15 * PRODUCT


def test_a_scan_multiplies_and_a_conditional_takes_its_costliest_branch() -> None:
    def scanned(x: jax.Array, w: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda y, _: (y @ w, None), x, None, length=11)[0]

    assert flops(scanned, X, W) == 11 * PRODUCT
    either = lambda x, w: jax.lax.cond(x[0, 0] > 0, lambda: x @ w, lambda: scanned(x, w))  # noqa: E731
    assert flops(either, X, W) == 11 * PRODUCT


def test_the_zeros_in_the_gradient_of_a_strided_convolution_are_not_counted() -> None:
    x, w = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 5))

    def loss(x: jax.Array, w: jax.Array) -> jax.Array:
        form = ("NHWC", "HWIO", "NHWC")
        return jnp.sum(
            jax.lax.conv_general_dilated(x, w, (2, 2), ((1, 1), (1, 1)), dimension_numbers=form)
        )

    forward = 2.0 * (2 * 4 * 4) * (3 * 3 * 3) * 5
    assert flops(loss, x, w) == forward
    assert flops(jax.value_and_grad(loss, argnums=(0, 1)), x, w) == 3 * forward


def test_recomputation_is_counted() -> None:
    def loss(x: jax.Array, w: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(x @ w))

    plain, again = (jax.grad(f, argnums=(0, 1)) for f in (loss, jax.checkpoint(loss)))
    assert flops(plain, X, W) == 3 * PRODUCT
    assert flops(again, X, W) == 4 * PRODUCT


def test_a_convolution_counts_its_kernel_for_every_output() -> None:
    image, kernel = jnp.ones((2, 3, 9, 9)), jnp.ones((5, 3, 3, 3))
    convolve = lambda x, k: jax.lax.conv(x, k, (1, 1), "VALID")  # noqa: E731
    assert flops(convolve, image, kernel) == 2 * (2 * 5 * 7 * 7) * (3 * 3 * 3)


def test_a_kernel_counts_once_for_each_point_of_its_grid() -> None:
    def kernel(x_ref, w_ref, out_ref):  # type: ignore[no-untyped-def]
        out_ref[...] = x_ref[...] @ w_ref[...]

    call = pl.pallas_call(
        kernel,
        grid=(4, 3),
        in_specs=[pl.BlockSpec((8, 16), lambda i, j: (i, 0)), pl.BlockSpec((16, 16))],
        out_specs=pl.BlockSpec((8, 16), lambda i, j: (i, 0)),
        out_shape=jax.ShapeDtypeStruct((32, 16), jnp.float32),
        interpret=True,
    )
    assert flops(call, jnp.ones((32, 16)), W) == 12 * PRODUCT


def test_the_networks_flop_formula_is_what_the_compiler_counts_on_unrolled_blocks() -> None:
    # Unrolled, and attention in one piece, because the compiler counts a scan's body once; wide, so
    # that products outweigh everything else that it counts.
    for attention in ("joint", "factorised"):
        config = VideoDiTConfig(
            channels=3, patch_size=4, hidden_size=256, depth=2, num_heads=4, attention=attention,
            scan_layers=False, attention_kernel="xla",
        )  # fmt: skip
        network = VideoDiT(config)
        params = jax.eval_shape(network.init, jax.random.key(0))
        num_frames, batch_size = 8, 2
        video = jax.ShapeDtypeStruct((batch_size, num_frames, 32, 32, 3), jnp.float32)
        label = {"label": jax.ShapeDtypeStruct((batch_size, 1), jnp.int32)}

        def apply(params, video, label, network=network, num_frames=num_frames):  # type: ignore
            positions = Positions(np.arange(num_frames), np.arange(32), np.arange(32))
            t = jnp.zeros(len(video))
            return network.apply(params, video, t, positions, (1, 1, 1), label)

        traced = jax.jit(apply).trace(params, video, label)
        analytic = batch_size * network.flops((num_frames, 32, 32))
        assert matmul_flops(traced.jaxpr.jaxpr) == pytest.approx(analytic, rel=1e-3)
        compilers = traced.lower().cost_analysis()["flops"]
        assert analytic < compilers < 1.06 * analytic  # the rest: norms, softmax, activations
