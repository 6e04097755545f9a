"""Every impossible shape of Wan's transformer is refused by the name of its config field."""

import pytest

from tpdiff_jax.models import WanConfig


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dtype": "float16"}, r"model.dtype is 'float16'; allowed: .*bfloat16"),
        ({"remat": "yes"}, r"model.remat is 'yes'; allowed: .*full"),
        ({"attention_kernel": "flash"}, r"model.attention_kernel is 'flash'; allowed: .*splash"),
        ({"rope_theta": 1.0}, r"model.rope_theta must be above 1, got 1.0"),
        ({"head_dim": 25}, r"model.head_dim must be even and at least 6, .*got 25"),
        ({"head_dim": 4}, r"model.head_dim must be even and at least 6, .*got 4"),
        ({"num_time_features": 31}, r"model.num_time_features must be even, .*got 31"),
    ],
)
def test_impossible_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        WanConfig(**fields)


@pytest.mark.parametrize(
    "field",
    [
        "channels", "patch_size", "num_heads", "head_dim", "depth", "feed_forward_dim",
        "num_time_features", "text_dim", "num_text_tokens",
    ],
)  # fmt: skip
def test_sizes_are_positive(field):
    with pytest.raises(ValueError, match=rf"model.{field} is 0; allowed: above 0"):
        WanConfig(**{field: 0})
