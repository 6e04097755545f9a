"""Every impossible shape of the Flux transformer is refused by the name of its config field."""

import pytest

from tpdiff_jax.models import FluxConfig


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dtype": "float16"}, r"model.dtype is 'float16'; allowed: .*bfloat16"),
        ({"remat": "yes"}, r"model.remat is 'yes'; allowed: .*full"),
        ({"rope_theta": 1.0}, r"model.rope_theta must be above 1, got 1.0"),
        ({"rope_dims": (16, 24)}, r"model.rope_dims must be three positive even numbers"),
        ({"rope_dims": (15, 24, 24)}, r"model.rope_dims must be .*got \(15, 24, 24\)"),
        ({"rope_dims": (0, 24, 24)}, r"model.rope_dims must be .*got \(0, 24, 24\)"),
    ],
)
def test_impossible_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        FluxConfig(**fields)


@pytest.mark.parametrize(
    "field",
    [
        "channels", "patch_size", "num_heads", "num_double_blocks", "num_single_blocks",
        "mlp_ratio", "text_dim", "num_text_tokens", "pooled_dim",
    ],
)  # fmt: skip
def test_sizes_are_positive(field):
    with pytest.raises(ValueError, match=rf"model.{field} is 0; allowed: above 0"):
        FluxConfig(**{field: 0})


def test_the_defaults_are_miniflux():
    config = FluxConfig()
    assert (config.hidden_size, config.head_dim, config.feed_forward_dim) == (1920, 64, 7680)
    assert config.patch_dim == 64
