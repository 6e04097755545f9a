"""A config.json of published weights with odd fields is one line, never a traceback."""

import json
import pathlib
from typing import Any

import diffusers
import pytest

from tpdiff_jax.models.causal_video_vae.weights import read_vae_config
from tpdiff_jax.models.image_vae.weights import read_image_vae_config
from tpdiff_jax.models.open_sora_vae.weights import read_open_sora_vae_config
from tpdiff_jax.models.wan_vae.weights import read_wan_vae_config

READERS = {
    read_image_vae_config: (
        *("block_out_channels", "latent_channels", "layers_per_block", "norm_num_groups"),
        *("_class_name", "shift_factor", "latents_mean"),
    ),
    read_open_sora_vae_config: ("micro_frame_size", "shift", "scale", "vae_2d", "vae_temporal"),
    read_vae_config: ("encoder_block_out_channels", "encoder_layers_per_block"),
    read_wan_vae_config: (
        *("base_dim", "dim_mult", "decoder_base_dim", "z_dim", "num_res_blocks"),
        *("temperal_downsample", "latents_mean", "latents_std", "_class_name", "patch_size"),
    ),
}
COUNTS = {
    read_image_vae_config: ("latent_channels", "layers_per_block", "norm_num_groups"),
    read_open_sora_vae_config: ("micro_frame_size",),
    read_vae_config: ("encoder_out_channels", "encoder_layers_per_block"),
    read_wan_vae_config: ("z_dim", "num_res_blocks"),
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


@pytest.mark.parametrize("read", COUNTS, ids=lambda read: read.__name__)
def test_a_part_of_a_channel_or_block_is_refused(read: Any, tmp_path: pathlib.Path) -> None:
    for name in COUNTS[read]:
        (tmp_path / "config.json").write_text(json.dumps({name: 2.5}))
        with pytest.raises(ValueError, match=r"is 2.5; allowed: whole numbers from 1"):
            read(tmp_path)


@pytest.mark.parametrize(
    "field, value",
    [
        ("_class_name", "AutoencoderTiny"),
        ("latents_mean", [0.1, 0.2, 0.3, 0.4]),
        ("latents_std", [1.1, 1.2, 1.3, 1.4]),
        ("shift_factor", 0.0609),
        ("use_quant_conv", False),
    ],
)
def test_an_image_autoencoder_whose_latents_are_scaled_otherwise_is_refused(
    field: str, value: Any, tmp_path: pathlib.Path
) -> None:
    for read, fields in (
        (read_image_vae_config, {field: value}),
        (read_open_sora_vae_config, {"vae_2d": {field: value}}),
    ):
        (tmp_path / "config.json").write_text(json.dumps(fields))
        with pytest.raises(ValueError, match=rf"says {field}=.*is read"):
            read(tmp_path)


def test_what_diffusers_writes_of_an_image_autoencoder_is_read(tmp_path: pathlib.Path) -> None:
    diffusers.AutoencoderKL(norm_num_groups=2).save_config(tmp_path)
    assert read_image_vae_config(tmp_path).level_channels == (64,)
