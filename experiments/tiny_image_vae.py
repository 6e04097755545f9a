"""A small image autoencoder trained on frames, laid out like a published one: no downloads.

    loss = |x - decode(z)|^2 + KL_WEIGHT * KL(N(mean, var) || N(0, 1)),   z = mean + std * noise

Its latents are scaled to unit mean square, as Stable Diffusion's scaling factor does.
"""

import dataclasses
import functools
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging

from tpdiff_jax.files.durable import write_durably
from tpdiff_jax.models.image_vae.config import ImageVAEConfig
from tpdiff_jax.models.image_vae.network import ImageVAE
from tpdiff_jax.models.image_vae.weights import IMAGE_VAE_FIELDS, image_vae_rows
from tpdiff_jax.types import Array, Params, PRNGKey
from tpdiff_jax.weights.key_table import export_tensor, flatten_params, places
from tpdiff_jax.weights.tensor_files import write_folder

CONFIG = ImageVAEConfig(
    latent_channels=8, level_channels=(16, 32, 32), level_depth=1, num_groups=4, scale=1.0
)
KL_WEIGHT = 1e-5
BATCH_SIZE, LEARNING_RATE = 32, 4e-3


def write_image_vae(folder: pathlib.Path, frames: np.ndarray, num_steps: int) -> None:
    """Train an autoencoder on frames and write what `prepare.video_encoder="image_vae"` reads.

    Args:
        folder: must hold no safetensors.
        frames: pixels in [-1, 1], [n, h, w, 3].
        num_steps: training steps.
    """
    vae = ImageVAE(CONFIG)
    params = train_image_vae(vae, frames, num_steps)
    mean, _ = jax.jit(vae.encode)(params, frames[None, : 8 * BATCH_SIZE])
    scale = float(1.0 / jnp.sqrt(jnp.mean(mean**2)))
    save_image_vae(folder, params, dataclasses.replace(CONFIG, scale=scale))


def train_image_vae(vae: ImageVAE, frames: np.ndarray, num_steps: int) -> Params:
    """Return the parameters after `num_steps` of Adam with a cosine schedule."""
    key_init, key_steps = jax.random.split(jax.random.key(0))
    params = vae.init(key_init)
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, num_steps))
    opt_state, gradient = optimizer.init(params), jax.value_and_grad(functools.partial(_loss, vae))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(params: Params, opt_state: Any, frames: Array, key: PRNGKey) -> Any:
        loss, grads = gradient(params, frames, key)
        updates, opt_state = optimizer.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state, loss

    draws = np.random.default_rng(0)
    for step in range(num_steps):
        batch = frames[draws.integers(len(frames), size=BATCH_SIZE)][None]
        key = jax.random.fold_in(key_steps, step)
        params, opt_state, loss = update(params, opt_state, batch, key)
        if (step + 1) % 100 == 0:
            logging.info("autoencoder: step %d, loss %.4f", step + 1, loss)
    return params


def _loss(vae: ImageVAE, params: Params, frames: Array, key: PRNGKey) -> Array:
    mean, log_var = vae.encode(params, frames)
    z = mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, mean.shape)
    kl = 0.5 * (mean**2 + jnp.exp(log_var) - 1.0 - log_var)
    return jnp.mean((frames - vae.decode(params, z)) ** 2) + KL_WEIGHT * jnp.mean(kl)


def save_image_vae(folder: pathlib.Path, params: Params, config: ImageVAEConfig) -> None:
    """Write parameters and config.json in diffusers' layout, float32."""
    leaves, dtype = flatten_params(params), np.dtype(np.float32)
    found = places(image_vae_rows(config), params)
    sizes = {name: int(np.prod(place.shape)) * dtype.itemsize for name, place in found.items()}
    write_folder(folder, sizes, lambda name: export_tensor(leaves, found[name], dtype))
    fields = {name: getattr(config, ours) for name, ours in IMAGE_VAE_FIELDS}
    write_durably(folder / "config.json", json.dumps(fields, indent=2, sort_keys=True) + "\n")
