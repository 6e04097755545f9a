"""What is trained and what stays: nothing is lost, a fresh change changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tpdiff_jax.optim.adaptation import Adaptation, union

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


PARAMS = {
    "stem": {"kernel": normal(3, 4), "bias": normal(4)},
    "blocks": {"motion": {"kernel": normal(2, 4, 5), "scale": np.ones(4, np.float32)}},
}
KEY = jax.random.key(0)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_by_default_everything_is_trained():
    trained, frozen = Adaptation().split(PARAMS, KEY)
    same(trained, PARAMS)
    assert frozen == {}
    same(Adaptation().merge(trained, frozen), PARAMS)


def test_a_pattern_parts_the_tree_and_merging_puts_it_together():
    adaptation = Adaptation(trained=".*/motion/.*")
    trained, frozen = adaptation.split(PARAMS, KEY)
    assert set(trained) == {"blocks"} and set(frozen) == {"stem"}
    same(adaptation.merge(trained, frozen), PARAMS)
    same(union(trained, frozen), PARAMS)


def test_low_rank_changes_start_at_nothing_and_are_scaled_products():
    adaptation = Adaptation(rank=2, alpha=6.0)
    trained, frozen = adaptation.split(PARAMS, KEY)
    same(frozen, PARAMS)
    assert {path: leaf.shape for path, leaf in trained["blocks"]["motion"].items()} == {
        "lora_a": (2, 4, 2), "lora_b": (2, 2, 5),
    }  # fmt: skip
    assert set(trained["stem"]) == {"lora_a", "lora_b"}
    assert float(jnp.abs(trained["stem"]["lora_a"]).max()) < 3**-0.5
    same(adaptation.merge(trained, frozen), PARAMS)
    moved = jax.tree.map(lambda x: x + 1.0, trained)
    merged = adaptation.merge(moved, frozen)
    low_a, low_b = moved["blocks"]["motion"]["lora_a"], moved["blocks"]["motion"]["lora_b"]
    expected = PARAMS["blocks"]["motion"]["kernel"] + 3.0 * np.einsum("lir,lro->lio", low_a, low_b)
    np.testing.assert_allclose(merged["blocks"]["motion"]["kernel"], expected, rtol=1e-5)
    same(merged["blocks"]["motion"]["scale"], PARAMS["blocks"]["motion"]["scale"])


def test_training_sees_low_rank_changes_beside_untouched_matrices_scaled_in_a():
    adaptation = Adaptation(trained=".*/motion/.*", rank=2, alpha=6.0)
    trained, frozen = adaptation.split(PARAMS, KEY)
    attached = adaptation.attach(trained, frozen)
    change = attached["blocks"]["motion"]
    same(change.pop("lora_a"), 3.0 * trained["blocks"]["motion"]["lora_a"])
    same(change.pop("lora_b"), trained["blocks"]["motion"]["lora_b"])
    same(attached, PARAMS)
    assert set(trained["blocks"]["motion"]) == {"lora_a", "lora_b"}, "the state has its own tree"


def test_without_low_rank_training_sees_the_networks_parameters():
    for adaptation in (Adaptation(), Adaptation(trained=".*/motion/.*")):
        same(adaptation.attach(*adaptation.split(PARAMS, KEY)), PARAMS)


def test_a_convolution_is_narrowed_by_its_window_and_widened_at_every_place():
    kernel = normal(3, 3, 4, 5)
    trained, frozen = Adaptation(rank=2).split({"conv": {"kernel": kernel}}, KEY)
    low_a, low_b = trained["conv"]["lora_a"], normal(2, 5)
    assert low_a.shape == (3, 3, 4, 2) and trained["conv"]["lora_b"].shape == (2, 5)
    bound = float(jnp.abs(low_a).max())
    assert 0.9 * 36**-0.5 < bound < 36**-0.5, "drawn for the 36 values of a window"
    trained = {"conv": {"lora_a": low_a, "lora_b": low_b}}
    change = Adaptation(rank=2, alpha=6.0).merge(trained, frozen)["conv"]["kernel"] - kernel
    expected = 3.0 * np.asarray(low_a).reshape(36, 2) @ low_b
    np.testing.assert_allclose(change.reshape(36, 5), expected, atol=1e-5)


def test_low_rank_matrices_have_a_place_before_the_networks_own():
    axes = (("stem/kernel", ("width", None)),)
    assert Adaptation(trained="stem/.*").param_axes(axes) == axes
    assert Adaptation(rank=1).param_axes(axes)[1:] == axes


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"trained": "("}, r"adaptation.trained='\(' is no regular expression"),
        ({"rank": -1}, "adaptation.rank is -1; allowed: at least 0"),
        ({"alpha": 0.0}, "adaptation.alpha is 0.0; allowed: above 0"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Adaptation(**fields)


def test_kernels_that_are_neither_matrix_nor_convolution_are_left_out_or_refused():
    params = {"deep": {"kernel": normal(3, 3, 3, 4, 5)}, "stem": PARAMS["stem"]}
    trained, _ = Adaptation(trained="stem/.*", rank=1).split(params, KEY)
    assert set(trained) == {"stem"}
    with pytest.raises(
        ValueError, match=r"adaptation.rank=1: deep/kernel of shape \(3, 3, 3, 4, 5"
    ):
        Adaptation(rank=1).split(params, KEY)


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(ValueError, match="adaptation.trained='motion' matches the path of no par"):
        Adaptation(trained="motion").split(PARAMS, KEY)
    with pytest.raises(ValueError, match="matches the path of no matrix"):
        Adaptation(trained=".*/scale", rank=4).split(PARAMS, KEY)
