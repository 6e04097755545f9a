"""diffusers' UNetMotionModel on small random weights, as the reference for parity tests.

Weights are drawn so that every part matters: scales of norms near 1, everything else with standard
deviation 0.2 or, in wide sums, of unit gain; nothing is left at the zero that training starts from.
With weaker weights an error in the temporal positions would vanish below any tolerance.
"""

import jax
import numpy as np
import torch
from diffusers import UNetMotionModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D

from tpdiff_jax.models import AnimateDiff, AnimateDiffConfig
from tpdiff_jax.models.animatediff.weight_rows import animatediff_rows
from tpdiff_jax.weights.key_table import import_params, places

HEIGHT, WIDTH = 4, 6
CONFIG = AnimateDiffConfig(
    channels=3, level_channels=(8, 16), level_depth=1, num_heads=2, num_groups=4, text_dim=10,
    num_text_tokens=5, motion_form="v2",
)  # fmt: skip


def make_reference(config=CONFIG, seed=0):
    """Return the reference network of `config` with random weights."""
    last = config.num_levels - 1
    model = UNetMotionModel(
        sample_size=HEIGHT, in_channels=config.channels, out_channels=config.channels,
        block_out_channels=config.level_channels, layers_per_block=config.level_depth,
        down_block_types=("CrossAttnDownBlockMotion",) * last + ("DownBlockMotion",),
        up_block_types=("UpBlockMotion",) + ("CrossAttnUpBlockMotion",) * last,
        norm_num_groups=config.num_groups, cross_attention_dim=config.text_dim,
        num_attention_heads=config.num_heads, motion_num_attention_heads=config.num_heads,
        motion_max_seq_length=config.motion.num_positions,
        use_motion_mid_block=config.motion.is_in_middle,
    )  # fmt: skip
    randomise(model, seed)
    return model


def randomise(model, seed=0):
    """Draw every parameter anew."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(0.1 * noise + (1.0 if name.endswith("weight") else 0.0))
            else:
                gain = max(1, np.prod(parameter.shape[1:])) ** -0.5
                parameter.copy_(max(0.2, gain) * noise if parameter.ndim == 2 else gain * noise)


def see_one_frame(model):
    """Make the norms of the motion modules see one frame at a time, as AnimateDiff's own do."""
    for module in model.modules():
        if isinstance(module, AnimateDiffTransformer3D):
            norm = module.norm

            def per_frame(x, norm=norm):
                frames = [norm.forward(x[:, :, i]) for i in range(x.shape[2])]
                return torch.stack(frames, dim=2)

            module.norm = _Wrapped(norm, per_frame)
    return model


class _Wrapped(torch.nn.Module):
    """A norm under its own parameter names, run by another function."""

    def __init__(self, norm, function):
        super().__init__()
        self.weight, self.bias, self.function = norm.weight, norm.bias, function

    def forward(self, x):
        return self.function(x)


def index_positions(model, positions):
    """Make every table of positions start with the rows of these positions."""
    for name, buffer in model.named_buffers():
        if name.endswith("pos_embed.pe"):
            owner = model.get_submodule(name.removesuffix(".pe"))
            owner.pe = buffer[:, np.asarray(positions, int)]
    return model


def to_params(tensors, config=CONFIG):
    """Tensors of the reference, or their gradients, as a tree of our parameters."""
    shapes = jax.eval_shape(AnimateDiff(config).init, jax.random.key(0))
    found = places(animatediff_rows(config), shapes)
    return import_params(found, lambda name: tensors[name].detach().numpy(), shapes)


def make_inputs(num_frames, config=CONFIG, seed=0, height=HEIGHT, width=WIDTH):
    """Latents, times and text.

    The times are small: at 1000 single precision leaves the sinusoids of either network 5e-5 from
    the truth, which is more than the tolerance of the parity tests.
    """
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, num_frames, height, width, config.channels))
    text = rng.standard_normal((2, config.num_text_tokens, config.text_dim))
    cond = {"text": text.astype(np.float32)}
    return x.astype(np.float32), np.array([7.0, 64.0], np.float32), cond


def run_reference(model, x, t, cond):
    """Run the reference; its output carries a gradient graph of the weights.

    Returns:
        [b, f, h, w, c], a torch tensor.
    """
    sample = torch.from_numpy(np.moveaxis(x, -1, 1).copy())  # [b, c, f, h, w]
    text = torch.from_numpy(cond["text"]).repeat_interleave(x.shape[1], dim=0)
    output = model(sample, torch.from_numpy(t), encoder_hidden_states=text).sample
    return output.movedim(1, -1)
