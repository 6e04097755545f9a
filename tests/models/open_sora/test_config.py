"""Every impossible shape of Open-Sora's transformers is refused by the name of its field."""

import pytest

from tpdiff_jax.models import OpenSoraConfig


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"form": "stdit2"}, r"model.form is 'stdit2'; allowed: 'stdit', 'stdit3'"),
        ({"fps_of": "video"}, r"model.fps_of is 'video'; allowed: 'clip', 'stage'"),
        ({"dtype": "float16"}, r"model.dtype is 'float16'; allowed: .*bfloat16"),
        ({"remat": "yes"}, r"model.remat is 'yes'; allowed: .*full"),
        ({"attention_kernel": "flash"}, r"model.attention_kernel is 'flash'; allowed: .*splash"),
        ({"hidden_size": 1150}, r"model.hidden_size must be a multiple of 4, .*got 1150"),
        ({"num_heads": 7}, r"model.num_heads must divide hidden_size .*got 7 heads for 1152"),
        ({"hidden_size": 36, "num_heads": 4}, r"an even number of channels; got 4 heads for 36"),
        ({"mlp_ratio": 0.0005}, r"model.mlp_ratio leaves no hidden unit of 1152 channels"),
    ],
)
def test_impossible_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        OpenSoraConfig(**fields)


@pytest.mark.parametrize(
    "field",
    [
        "channels", "patch_size", "hidden_size", "num_heads", "depth", "mlp_ratio", "text_dim",
        "num_text_tokens", "base_side", "time_scale", "fps",
    ],
)  # fmt: skip
def test_sizes_are_positive(field):
    with pytest.raises(ValueError, match=rf"model.{field} is 0; allowed: above 0"):
        OpenSoraConfig(**{field: 0})
