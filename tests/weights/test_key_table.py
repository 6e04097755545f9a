"""Key tables: rows cover the parameters exactly, and what a file lacks is named."""

import jax
import numpy as np
import pytest

from tpdiff_jax.weights.key_table import (
    HALVES_SWAPPED,
    TRANSPOSED,
    KeyRow,
    check_tensors,
    export_tensor,
    flatten_params,
    import_params,
    linear_rows,
    places,
)

ROWS = [
    *linear_rows("blocks.{layer}.q", "blocks/qk", (0, 2)),
    *linear_rows("blocks.{layer}.k", "blocks/qk", (1, 2)),
    *linear_rows("norm", "head", outputs=HALVES_SWAPPED),
    KeyRow("scale", "scale"),
]


def shapes():
    def array(*shape):
        return jax.ShapeDtypeStruct(shape, np.float32)

    return {
        "blocks": {"qk": {"kernel": array(2, 3, 8), "bias": array(2, 8)}},
        "head": {"kernel": array(3, 4), "bias": array(4)},
        "scale": array(5),
    }


def tensors():
    """Distinct values everywhere, in the file's layout."""
    rng = np.random.default_rng(0)
    found = places(ROWS, shapes())
    return {name: rng.standard_normal(p.shape).astype(np.float32) for name, p in found.items()}


def test_tensors_land_where_the_rows_say():
    file = tensors()
    params = import_params(places(ROWS, shapes()), file.__getitem__, shapes())
    kernel, bias = params["blocks"]["qk"]["kernel"], params["blocks"]["qk"]["bias"]
    for layer in range(2):
        np.testing.assert_array_equal(kernel[layer, :, :4], file[f"blocks.{layer}.q.weight"].T)
        np.testing.assert_array_equal(kernel[layer, :, 4:], file[f"blocks.{layer}.k.weight"].T)
        np.testing.assert_array_equal(bias[layer, 4:], file[f"blocks.{layer}.k.bias"])
    np.testing.assert_array_equal(params["head"]["bias"], file["norm.bias"][[2, 3, 0, 1]])
    np.testing.assert_array_equal(params["head"]["kernel"], file["norm.weight"][[2, 3, 0, 1]].T)
    np.testing.assert_array_equal(params["scale"], file["scale"])


def test_export_undoes_import_bit_for_bit():
    file, found = tensors(), places(ROWS, shapes())
    leaves = flatten_params(import_params(found, file.__getitem__, shapes()))
    for name, tensor in file.items():
        exported = export_tensor(leaves, found[name], np.dtype(np.float32))
        np.testing.assert_array_equal(exported, tensor)
        assert exported.flags.c_contiguous


def test_transforms_compose_from_the_file_to_the_parameter():
    both = TRANSPOSED.then(HALVES_SWAPPED)
    x = np.arange(8.0).reshape(4, 2)
    np.testing.assert_array_equal(both.to_param(x), x.T[:, [2, 3, 0, 1]])
    np.testing.assert_array_equal(both.to_tensor(both.to_param(x)), x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm.bias": None}, r"x: tensor 'norm.bias' is missing \(1 such in all\)"),
        ({"more": (1,)}, r"x: tensor 'more' is not part of this network \(1 such in all\)"),
        (
            {"blocks.1.q.weight": (3, 4), "scale": (6,)},
            r"x: tensor 'blocks.1.q.weight' has shape \(3, 4\), this network needs \(4, 3\) \(2",
        ),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    held = {name: t.shape for name, t in tensors().items()} | change
    held = {name: shape for name, shape in held.items() if shape is not None}
    with pytest.raises(ValueError, match=message):
        check_tensors(places(ROWS, shapes()), held, "x")


def test_what_fits_is_let_through():
    check_tensors(places(ROWS, shapes()), {n: t.shape for n, t in tensors().items()}, "x")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS[:-1], r"does not cover 'scale' exactly"),
        (ROWS[1:], r"does not cover 'blocks/qk/kernel' exactly"),
        ([*ROWS, KeyRow("again", "scale")], r"does not cover 'scale' exactly"),
        ([*ROWS, KeyRow("other", "nowhere")], r"names 'nowhere', which is no parameter"),
    ],
)
def test_a_table_that_is_wrong_is_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        places(rows, shapes())
