"""The table of networks: built from fields and from what the data says, refused by full path."""

import re

import pytest

from tpdiff_jax.models import (
    MODELS,
    AnimateDiff,
    AnimateDiffConfig,
    Flux,
    FluxConfig,
    ModelScope,
    ModelScopeConfig,
    OpenSora,
    OpenSoraConfig,
    VideoDiT,
    VideoDiTConfig,
    Wan,
    WanConfig,
    make_network,
)
from tpdiff_jax.models.layers.one_device import OneDevice


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("animatediff", AnimateDiff(AnimateDiffConfig(num_heads=4, channels=3))),
        ("flux", Flux(FluxConfig(num_heads=4, channels=3))),
        ("open_sora", OpenSora(OpenSoraConfig(num_heads=4, channels=3))),
        ("video_dit", VideoDiT(VideoDiTConfig(num_heads=4, channels=3, num_classes=7))),
        ("wan", Wan(WanConfig(num_heads=4, channels=3))),
    ],
)
def test_networks_are_told_of_the_data_what_they_take(name, network):
    layout = OneDevice()
    found = make_network(name, layout, {"num_heads": 4}, channels=3, num_classes=7)
    assert found == network and found.layout is layout


def test_heads_of_one_width_are_told_of_the_data_too():
    found = make_network("modelscope", OneDevice(), {"head_dim": 32}, channels=3, num_classes=7)
    assert found == ModelScope(ModelScopeConfig(head_dim=32, channels=3))


def test_fields_may_be_left_out():
    assert make_network("flux", channels=16) == Flux(FluxConfig())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("field", ["hidden_sise", "frame_height"])
def test_an_unknown_field_is_refused_by_its_full_path(name, field):
    with pytest.raises(
        ValueError,
        match=rf"model\.{field} is no field of '{name}'; allowed: .*\b(num_heads|head_dim)\b",
    ):
        make_network(name, fields={field: 8}, channels=3)


@pytest.mark.parametrize("field", ["channels", "num_classes"])
def test_what_the_data_says_is_no_field(field):
    with pytest.raises(ValueError, match=rf"model\.{field} comes from the data") as error:
        make_network("video_dit", fields={field: 8}, channels=3)
    assert not re.search(rf"\b{field}\b", str(error.value).partition("allowed")[2])


def test_unknown_names_and_values_of_another_type_are_refused():
    with pytest.raises(ValueError, match=r"model.name must be one of .*'flux'.*, got 'latte'"):
        make_network("latte", channels=3)
    with pytest.raises(ValueError, match="fields of model do not fit model.name='flux'"):
        make_network("flux", fields={"rope_dims": 8}, channels=3)
    with pytest.raises(ValueError, match="model.num_heads is 0; allowed: above 0"):
        make_network("flux", fields={"num_heads": 0}, channels=3)
