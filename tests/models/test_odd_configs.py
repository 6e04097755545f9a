"""A config.json of published weights with odd fields is one line, never a traceback."""

import json
import pathlib
from typing import Any

import pytest

from tpdiff_jax.models.causal_video_vae.weights import read_vae_config
from tpdiff_jax.models.image_vae.weights import read_image_vae_config
from tpdiff_jax.models.open_sora_vae.weights import read_open_sora_vae_config

READERS = {
    read_image_vae_config: ("block_out_channels", "layers_per_block", "norm_num_groups"),
    read_open_sora_vae_config: ("micro_frame_size", "shift", "scale", "vae_2d", "vae_temporal"),
    read_vae_config: ("encoder_block_out_channels", "encoder_layers_per_block"),
}


@pytest.mark.parametrize("value", ["text", -1, 2.5, {"x": 1}, [], [[1]], ["a"], [-1], 10**30])
@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
def test_a_field_of_a_wrong_kind_is_one_line(read: Any, value: Any, tmp_path: pathlib.Path) -> None:
    for name in READERS[read]:
        (tmp_path / "config.json").write_text(json.dumps({name: value}))
        try:
            read(tmp_path)
        except ValueError as error:
            assert "\n" not in str(error) and len(str(error)) < 500


@pytest.mark.parametrize("text", ["[]", "{", "[" * 100_000, '{"a":' * 90_000, "\xff"])
@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
def test_what_is_no_json_object_is_one_line(read: Any, text: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"config\.json") as error:
        read(tmp_path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
