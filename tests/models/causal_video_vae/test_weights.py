"""The autoencoder's key table: as many tensors and values as published, and every one is read."""

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.models.causal_video_vae.causal_video_vae_reference import CONFIG, random_tensors
from tpdiff_jax.models.causal_video_vae.config import CausalVideoVAEConfig
from tpdiff_jax.models.causal_video_vae.network import CausalVideoVAE
from tpdiff_jax.models.causal_video_vae.weights import causal_video_vae_rows, load_causal_video_vae
from tpdiff_jax.weights.key_table import export_tensor, flatten_params, places


def abstract(config):
    return jax.eval_shape(CausalVideoVAE(config).init, jax.random.key(0))


def test_the_full_size_autoencoder_has_the_published_number_of_tensors_and_values():
    shapes = abstract(CausalVideoVAEConfig())
    found = places(causal_video_vae_rows(CausalVideoVAEConfig()), shapes)
    assert len(found) == 260
    assert round(sum(leaf.size for leaf in jax.tree.leaves(shapes)) / 1e6, 1) == 335.4
    assert found["encoder.conv_in.conv.weight"].shape == (128, 3, 3, 3, 3)
    assert found["encoder.down_blocks.1.resnets.0.conv_shortcut.conv.weight"].shape == (
        256, 128, 1, 1, 1,
    )  # fmt: skip
    assert found["decoder.up_blocks.0.upsamplers.0.conv.conv.weight"].shape == (
        2048, 512, 3, 3, 3,
    )  # fmt: skip
    assert found["decoder.mid_block.attentions.0.to_q.weight"].shape == (512, 512)


def test_every_tensor_survives_the_round_trip_bit_for_bit(tmp_path):
    found = places(causal_video_vae_rows(CONFIG), abstract(CONFIG))
    drawn = random_tensors({name: place.shape for name, place in found.items()})
    tensors = {name: tensor.numpy() for name, tensor in drawn.items()}
    save_file(tensors, tmp_path / "diffusion_pytorch_model.safetensors")
    leaves = flatten_params(load_causal_video_vae(tmp_path, CONFIG))
    for name, tensor in tensors.items():
        exported = export_tensor(leaves, found[name], np.dtype(np.float32))
        np.testing.assert_array_equal(exported, tensor, name)


def test_a_file_that_does_not_fit_is_refused_by_name(tmp_path):
    save_file({"other": np.zeros(1, np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"tensor 'quant_conv.conv.weight' is missing \(\d+ such"):
        load_causal_video_vae(tmp_path, CONFIG)
