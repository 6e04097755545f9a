"""Every parameter of the full-size Wan network has a place on the mesh, and no row is idle."""

import re

from tpdiff_jax.models import Wan, WanConfig
from tpdiff_jax.models.wan.axes import WAN_PARAM_AXES
from tpdiff_jax.models.wan.weights import abstract_wan_params
from tpdiff_jax.weights.key_table import flatten_params

LEAVES = flatten_params(abstract_wan_params(WanConfig()))


def axes_of(path):
    return next(axes for pattern, axes in WAN_PARAM_AXES if re.fullmatch(pattern, path))


def test_every_matrix_is_divided_along_the_width():
    for path, leaf in LEAVES.items():
        axes = axes_of(path)
        assert len(axes) in (0, leaf.ndim), path
        if path.endswith("kernel"):
            assert leaf.shape[axes.index("width")] == WanConfig().hidden_size, path
            assert ("layers" in axes) == ("blocks" in path), path


def test_what_stays_whole_is_a_thousandth_of_the_network():
    whole = sum(leaf.size for path, leaf in LEAVES.items() if not axes_of(path))
    assert whole < 1e-3 * sum(leaf.size for leaf in LEAVES.values())


def test_no_row_is_idle():
    for pattern, _ in WAN_PARAM_AXES:
        assert any(re.fullmatch(pattern, path) for path in LEAVES), pattern


def test_attention_is_divided_along_heads_and_the_patches_of_a_frame():
    network = Wan(WanConfig())
    assert network.param_axes is WAN_PARAM_AXES
    assert dict(network.axis_sizes((21, 60, 104)).values()) == {"heads": 12, "tokens": 1560}
