"""Every parameter of the full-size networks has a place on the mesh, and no row is idle."""

import re

import pytest

from tpdiff_jax.models import OpenSora, OpenSoraConfig
from tpdiff_jax.models.open_sora.axes import OPEN_SORA_PARAM_AXES
from tpdiff_jax.models.open_sora.weights import abstract_open_sora_params
from tpdiff_jax.weights.key_table import flatten_params

CONFIGS = {
    "stdit": OpenSoraConfig(),
    "stdit3": OpenSoraConfig(form="stdit3", num_text_tokens=300, qk_norm=True),
}
LEAVES = {form: flatten_params(abstract_open_sora_params(c)) for form, c in CONFIGS.items()}


def axes_of(path):
    return next(axes for pattern, axes in OPEN_SORA_PARAM_AXES if re.fullmatch(pattern, path))


@pytest.mark.parametrize("form", CONFIGS)
def test_every_matrix_is_divided_along_the_width(form):
    for path, leaf in LEAVES[form].items():
        axes = axes_of(path)
        assert len(axes) in (0, leaf.ndim), path
        if path.endswith("kernel"):
            assert leaf.shape[axes.index("width")] == CONFIGS[form].hidden_size, path
            assert ("layers" in axes) == ("blocks" in path), path


@pytest.mark.parametrize("form", CONFIGS)
def test_what_stays_whole_is_a_four_hundredth_of_the_network(form):
    """Most of it the embedding of no text, which has no axis of the network's width."""
    leaves = LEAVES[form]
    whole = sum(leaf.size for path, leaf in leaves.items() if not axes_of(path))
    assert whole < 2.5e-3 * sum(leaf.size for leaf in leaves.values())


def test_no_row_is_idle():
    for pattern, _ in OPEN_SORA_PARAM_AXES:
        assert any(re.fullmatch(pattern, path) for path in LEAVES["stdit3"]), pattern


def test_attention_is_divided_along_heads_and_the_patches_of_a_frame():
    network = OpenSora(OpenSoraConfig())
    assert network.param_axes is OPEN_SORA_PARAM_AXES
    assert dict(network.axis_sizes((16, 32, 32)).values()) == {"heads": 16, "tokens": 256}
