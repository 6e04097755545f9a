"""Every impossible shape is refused by the name of its config field."""

import pytest

from tpdiff_jax.models import VideoDiTConfig


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attention": "full"}, r"model.attention is 'full'; allowed: .*joint"),
        ({"activation": "tanh"}, r"model.activation is 'tanh'; allowed: .*gelu"),
        ({"dtype": "float16"}, r"model.dtype is 'float16'; allowed: .*bfloat16"),
        ({"remat": "yes"}, r"model.remat is 'yes'; allowed: .*full"),
        ({"rope_theta": 1.0}, r"model.rope_theta must be above 1, got 1.0"),
        ({"hidden_size": 100, "num_heads": 3}, r"model.num_heads must divide hidden_size"),
        ({"hidden_size": 9, "num_heads": 3}, r"model.num_heads must divide hidden_size"),
        ({"hidden_size": 4, "num_heads": 2}, r"at least 4; got 2 heads for 4 channels"),
        ({"hidden_size": 8, "num_heads": 2, "attention": "joint"}, r"at least 6; got 2 heads"),
        ({"level_channels": (8, 9)}, r"model.level_channels must be even .*, got \(8, 9\)"),
        ({"level_channels": (0,)}, r"model.level_channels must be even and at least 2"),
        (
            {"level_channels": (8, 8, 8)},
            r"model.level_channels=\(8, 8, 8\) halves frames 3 times: model.patch_size must be a "
            r"multiple of 8, got 4",
        ),
    ],
)
def test_impossible_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        VideoDiTConfig(**fields)


@pytest.mark.parametrize(
    "field",
    ["channels", "patch_size", "hidden_size", "depth", "num_heads", "mlp_ratio"],
)
def test_sizes_are_positive(field):
    with pytest.raises(ValueError, match=rf"model.{field} is 0; allowed: above 0"):
        VideoDiTConfig(**{field: 0})


def test_derived_sizes():
    config = VideoDiTConfig(channels=3, patch_size=8, hidden_size=96, num_heads=3)
    assert (config.patch_dim, config.head_dim, config.feed_forward_dim) == (192, 32, 384)
    assert (config.attention_axes, config.num_sublayers) == (("space", "time"), 3)
    assert VideoDiTConfig(patch_size=8, level_channels=(16, 24)).patch_dim == 4 * 24
    joint = VideoDiTConfig(attention="joint")
    assert (joint.attention_axes, joint.num_sublayers) == (("video",), 2)


def test_clips_may_have_no_classes_but_not_fewer():
    assert VideoDiTConfig(num_classes=0).num_classes == 0
    with pytest.raises(ValueError, match=r"model\.num_classes must not be negative, got -1"):
        VideoDiTConfig(num_classes=-1)
